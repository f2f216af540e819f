"""What a published dataset is: tracks that have names, checksums and a split that its literature compares results on.

The facts of one stand in a module of its own; `genres.datasets.published_datasets` lists them. The folder scan, the
split and the assets speak of published datasets by these alone.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedTrack:
    """One track of a published dataset."""

    track_id: str
    """As `genres.datasets.folder.scan` spells it for the layout ``<genre>/<track>.wav``."""
    genre: str
    md5: str
    """MD5 of the original file, 32 lower-case hexadecimal digits."""
    part: str
    """``train``, ``valid`` or ``test``; empty if the published split leaves the track out."""


@dataclass(frozen=True)
class Validation:
    """How files compare with the originals; each a sorted list of track ids."""

    missing: list[str]
    """Tracks of the dataset that are not there."""
    different: list[str]
    """Tracks whose bytes are not the original's."""
    unknown: list[str]
    """Tracks that the dataset does not have."""


@dataclass(frozen=True)
class PublishedDataset:
    """A dataset that is known by the names of its tracks."""

    name: str
    """The dataset's id, which only a folder of its tracks gets."""
    title: str
    """What it is called in sentences."""
    split_name: str
    """What its published split is called."""
    read_tracks: Callable[[], Mapping[str, PublishedTrack]]
    """All its tracks by track id. Called for every question, so it keeps what it has read."""

    def recognises(self, labels: Iterable[tuple[str, str]]) -> bool:
        """Return whether every (track id, genre) is one of this dataset's; false if there are none.

        The genre has to agree too: GTZAN's ``blues.00000`` under ``jazz`` is somebody's own sorting.
        """
        known = self.read_tracks()
        pairs = list(labels)
        return bool(pairs) and all(track_id in known and known[track_id].genre == genre for track_id, genre in pairs)

    def validate(self, md5_by_track: Mapping[str, str]) -> Validation:
        """Compare files with the originals, as mirdata's ``validate`` does.

        Parameters
        ----------
        md5_by_track
            MD5 of each file's bytes, in lower-case hexadecimal, by track id.

        Returns
        -------
        Validation
            All three lists are empty if and only if the files are all the originals.
        """
        known = self.read_tracks()
        return Validation(
            missing=sorted(known.keys() - md5_by_track.keys()),
            different=sorted(
                track_id for track_id, md5 in md5_by_track.items() if track_id in known and known[track_id].md5 != md5
            ),
            unknown=sorted(md5_by_track.keys() - known.keys()),
        )
