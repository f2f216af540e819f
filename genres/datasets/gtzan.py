"""What is known about GTZAN: its tracks, their checksums, its identical files and the fault-filtered split.

What belongs here: facts that name or number GTZAN's tracks (``gtzan_tracks.csv``, beside this module) and
functions that compare files with them. No audio and no features.

Sources
-------
Track names and audio: G. Tzanetakis and P. Cook, "Musical genre classification of audio signals", IEEE
Transactions on Speech and Audio Processing 10(5), 2002. MD5 sums: those that mirdata checks the original files
against. Faults: B. L. Sturm, "The GTZAN dataset: its contents, its faults, their effects on evaluation, and
its future use", 2013, arXiv:1306.1461. Split: C. Kereliuk, B. L. Sturm and J. Larsen, "Deep learning and music
adversaries", IEEE Transactions on Multimedia 17(11), 2015.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType


@dataclass(frozen=True)
class Track:
    """One of GTZAN's 1000 tracks."""

    track_id: str
    """``blues.00000``: the file's name without its suffix."""
    md5: str
    """MD5 of the original ``.wav`` file, 32 hexadecimal digits."""
    filtered_part: str
    """``train``, ``valid`` or ``test``; empty if the fault-filtered split leaves the track out."""

    @property
    def genre(self) -> str:
        """The genre that the track's name carries."""
        return self.track_id.partition(".")[0]


@dataclass(frozen=True)
class Validation:
    """How files compare with the originals; each a sorted list of track ids."""

    missing: list[str]
    """Tracks of GTZAN that are not there."""
    different: list[str]
    """Tracks whose bytes are not the original's."""
    unknown: list[str]
    """Tracks that GTZAN does not have."""


@cache
def tracks() -> Mapping[str, Track]:
    """Give all 1000 tracks by track id, sorted."""
    text = files("genres.datasets").joinpath("gtzan_tracks.csv").read_text(encoding="ascii")
    rows = csv.DictReader(text.splitlines())
    return MappingProxyType({row["track"]: Track(row["track"], row["md5"], row["filtered_part"]) for row in rows})


def is_gtzan(labels: Iterable[tuple[str, str]]) -> bool:
    """Tell whether every (track id, genre) is one of GTZAN's; false if there are none.

    The genre has to agree too: ``blues.00000`` under ``jazz`` is somebody's own sorting.
    """
    known = tracks()
    pairs = list(labels)
    return bool(pairs) and all(track_id in known and known[track_id].genre == genre for track_id, genre in pairs)


def validate(md5_by_track: Mapping[str, str]) -> Validation:
    """Compare files with the originals, as mirdata's ``validate`` does.

    Parameters
    ----------
    md5_by_track
        MD5 of each file's bytes, in lower-case hexadecimal, by track id.

    Returns
    -------
    Validation
        All three lists are empty if and only if the files are the 1000 originals.
    """
    known = tracks()
    return Validation(
        missing=sorted(known.keys() - md5_by_track.keys()),
        different=sorted(
            track_id for track_id, md5 in md5_by_track.items() if track_id in known and known[track_id].md5 != md5
        ),
        unknown=sorted(md5_by_track.keys() - known.keys()),
    )


def identical_pairs() -> list[tuple[str, str]]:
    """Give the 14 pairs of tracks whose original files are byte for byte the same, sorted.

    No three are the same. One pair, ``metal.00058`` and ``rock.00016``, carries two different genres.
    """
    by_md5: dict[str, list[str]] = defaultdict(list)
    for track in tracks().values():
        by_md5[track.md5].append(track.track_id)
    return sorted((group[0], group[1]) for group in by_md5.values() if len(group) > 1)
