"""The split into train, valid and test: by track, never with the same audio on two sides.

What belongs here: who goes where and why. A pure function of a table; storing the split is the caller's.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genres.datasets import published_datasets
from genres.datasets.published_dataset import PublishedDataset
from genres.errors import GenresError
from genres.file_names import safe_name
from genres.plurals import counted

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("train", "valid", "test")
"""The sides of a split."""

EXCLUDED = "excluded"
"""What stands in the column ``part`` of a track that is on no side."""

MIN_CLIPS_PER_GENRE = len(PARTS)
"""Different clips that each genre needs, one for each part."""

HASHED = "hash thresholds, version 4"
"""
The method for tracks that no published split is for. The version goes up with any change that may move a track; 1 was
``stratified``, which ranked the hashes, so that tracks that came or went moved others; 2 knew fewer names of parts; 3
took the clips of a genre that is a number for parts of one song.
"""

VALID_SHARE = TEST_SHARE = 0.2
"""Shares of a genre's tracks in the hashed split, as far as chance has it; the rest is for training."""


@dataclass(frozen=True)
class TrackSplit:
    """Who goes where, and why."""

    table: "pd.DataFrame"
    """
    A row for each track given, sorted by ``track_id``: ``track_id, genre, sha256``, ``part`` (one of `PARTS` or
    `EXCLUDED`) and ``reason`` (why a track is excluded, else empty).
    """
    method: str
    """The published split's name, such as ``fault-filtered``, or `HASHED`."""
    why: str
    """A sentence: what the method is and why it was taken."""


def split_tracks(tracks: "pd.DataFrame") -> TrackSplit:
    """Split accepted tracks into train, valid and test.

    If all names are those of a published dataset, its split is taken, for GTZAN the fault-filtered one [1]_, provided
    that the tracks at hand leave every genre in each of its parts. Otherwise a hash of its audio says where a track
    goes, 60/20/20: neither names nor other tracks matter, so that it stays where it is when others come or go. Only
    where names say that clips are parts of a song, as in ``blues.00000.3``, the song's name says where all of them go
    (`songs`). In a genre of few tracks a part may get none that way; then the track whose hash is nearest to its share
    goes there, until others come.

    Identical audio is one track: the first by ``track_id`` stays and its copies are excluded. If the labels of
    identical audio disagree nobody knows which is right, and all of it is excluded. In a published split
    this applies to the tracks that its lists name; GTZAN's name no audio twice in the original files.

    Parameters
    ----------
    tracks
        Columns ``track_id`` (unique), ``genre`` and ``sha256`` (of the audio file).

    Returns
    -------
    TrackSplit
        Every genre is in every part; no sha256 is in two, and no song.

    Raises
    ------
    GenresError
        If there are fewer than two genres, or a genre has fewer than three different clips, or songs, that can be used.

    References
    ----------
    .. [1] C. Kereliuk, B. L. Sturm and J. Larsen, "Deep learning and music adversaries", IEEE Transactions on
       Multimedia 17(11), 2015. Its lists leave out faults (repetitions, wrong labels, distortions) catalogued in
       B. L. Sturm, arXiv:1306.1461.
    """
    table = tracks[["track_id", "genre", "sha256"]].sort_values("track_id", ignore_index=True)
    genres = sorted(table["genre"].unique())
    if len(genres) < 2:
        held = f"one genre only, {genres[0]!r}" if genres else "no accepted track"
        raise GenresError(f"the split got {held}: a classifier needs two genres; add audio of others")

    published = published_datasets.published_dataset(zip(table["track_id"], table["genre"], strict=True))
    if published is None:
        owners = " or ".join(f"{known.title}'s" for known in published_datasets.PUBLISHED)
        why = f"Split 60/20/20 by a hash of the audio: the tracks are not {owners}."
        return TrackSplit(_hashed(table), HASHED, why + _about_songs(table))

    listed = _as_published(table, published)
    gaps = [
        f"{genre} has no {part} track"
        for genre in genres
        for part in PARTS
        if not ((listed["genre"] == genre) & (listed["part"] == part)).any()
    ]
    if gaps:
        why = (
            f"Split 60/20/20 by a hash of the audio: of the {published.title} tracks at hand, the "
            f"{published.split_name} split would leave {len(gaps)} gaps, the first being that {gaps[0]}."
        )
        return TrackSplit(_hashed(table), HASHED, why + _about_songs(table))
    title = published.title
    why = f"{title}'s published {published.split_name} split: all names are {title}'s and every genre is in every part."
    return TrackSplit(listed, published.split_name, why)


def fingerprint(table: "pd.DataFrame") -> str:
    """Digest a split, so that results on the same split are known to compare.

    Parameters
    ----------
    table
        Columns ``sha256``, ``genre`` and ``part``. Names, row order and excluded tracks make no difference.

    Returns
    -------
    str
        SHA-256 of the sorted rows, in hexadecimal.
    """
    used = table[table["part"] != EXCLUDED]
    rows = sorted(zip(used["sha256"], used["genre"], used["part"], strict=True))
    return _digest("\n".join(repr(row) for row in rows))


def _as_published(table: "pd.DataFrame", published: PublishedDataset) -> "pd.DataFrame":
    known = published.read_tracks()
    table = table.assign(part=[known[track_id].part or EXCLUDED for track_id in table["track_id"]], reason="")
    table.loc[table["part"] == EXCLUDED, "reason"] = f"left out by the {published.split_name} split"
    return _exclude_repeated_audio(table)


def _hashed(table: "pd.DataFrame") -> "pd.DataFrame":
    table = _exclude_repeated_audio(table.assign(part="", reason=""))
    for genre in table["genre"].unique():
        usable = table[(table["genre"] == genre) & (table["part"] != EXCLUDED)]
        if len(usable) < MIN_CLIPS_PER_GENRE:
            excluded = int((table["genre"] == genre).sum()) - len(usable)
            copies = f" ({excluded} more repeat other clips' audio)" if excluded else ""
            raise GenresError(
                f"genre {genre!r} has {counted(len(usable), 'usable clip')}{copies}: the split needs "
                f"{MIN_CLIPS_PER_GENRE} different ones of each genre; add clips or take the genre out"
            )
        found = songs(table.loc[table["genre"] == genre, "track_id"], str(genre))
        if found:
            require_songs({track: found[track] for track in usable["track_id"]}, str(genre))
        # A clip that is no part of a song goes by its audio, so that its name does not matter.
        keys = [
            song if (song := found.get(row.track_id, row.track_id)) != row.track_id else row.sha256
            for row in usable.itertuples()
        ]
        parts = _by_thresholds(keys)
        table.loc[usable.index, "part"] = [parts[key] for key in keys]
    return table


def _by_thresholds(keys: Iterable[str]) -> dict[str, str]:
    """Return the part of each key by its hash alone, but leave no part empty; there are at least as many as parts."""
    # Hashed again: the sha256 of files is not under our control, the order must not favour any.
    places = {key: int(_digest(f"split {key}")[:12], 16) / 16**12 for key in keys}
    ends = {"train": 1 - VALID_SHARE - TEST_SHARE, "valid": 1 - TEST_SHARE, "test": 1.0}
    parts = {key: next(part for part in PARTS if place < ends[part]) for key, place in places.items()}
    for part in PARTS:
        counts = Counter(parts.values())
        if not counts[part]:
            middle = ends[part] - (ends["train"] if part == "train" else VALID_SHARE) / 2
            movable = [key for key in places if counts[parts[key]] > 1]
            parts[min(movable, key=lambda key: (abs(places[key] - middle), key))] = part
    return parts


def songs(track_ids: Iterable[str], genre: str) -> Mapping[str, str]:
    """Return the song of each of a genre's clips, if their names say that they are parts of songs.

    A name that ends in ``.N`` or ``_N``, or in a word for a part and its number (``_part3``), may be part N of what
    stands in front. It is taken for one

    - if that is the genre and a number of at least three digits, as GTZAN's names are (``blues.00000.3``), and several
      clips have it; after such a name ``-N`` and `` (N)`` do as well; or
    - if at least three such songs have several clips each, and they are at least half of the genre's clips.

    Names that only count a genre's clips (``blues.00003``, ``blues_3``, ``track_3``) have one thing in front and
    are no parts.

    Parameters
    ----------
    track_ids
        The genre's tracks, as `genres.datasets.folder.scan` names them.
    genre
        The genre.

    Returns
    -------
    mapping
        Song by track id, a clip that is no part being its own song; empty if no clip is a part of one.

    Examples
    --------
    >>> songs(["blues.00000.0", "blues.00000.1", "blues.00001"], "blues")
    {'blues.00000.0': 'blues.00000', 'blues.00000.1': 'blues.00000', 'blues.00001': 'blues.00001'}
    >>> songs(["blues.00000", "blues.00001"], "blues")
    {}
    """
    tracks = list(track_ids)
    fronts = _fronts(tracks, _PART_OF_A_SONG)
    counts = Counter(fronts.values())
    own = safe_name(genre)  # what stands in front of all names that only count; it may be a number (``1980``)
    several = {front for front, count in counts.items() if count > 1 and front != own}
    if not (len(several) >= MIN_CLIPS_PER_GENRE and 2 * sum(counts[front] for front in several) >= len(tracks)):
        fronts = _fronts(tracks, _PART_OF_A_NUMBER)
        counts = Counter(fronts.values())
        several = {
            front
            for front, count in counts.items()
            if count > 1 and front != own and _NUMBERED.fullmatch(front.removeprefix(f"{own}."))
        }
    if not several:
        return {}
    return {track: front if (front := fronts.get(track)) in several else track for track in tracks}


def songs_of(tracks: "pd.DataFrame") -> dict[str, str]:
    """Return the song of each track, a track that is no part of one being its own; names are looked at by genre.

    Parameters
    ----------
    tracks
        Columns ``track_id`` and ``genre``.
    """
    found = {track: track for track in tracks["track_id"]}
    for genre, names in tracks.groupby("genre")["track_id"]:
        found |= songs(names, str(genre))
    return found


def require_songs(found: Mapping[str, str], genre: str) -> None:
    """Refuse a genre whose clips are parts of fewer songs than the split has sides.

    Parameters
    ----------
    found
        From `songs`.

    Raises
    ------
    GenresError
        With what to do.
    """
    names = sorted(set(found.values()))
    if names and len(names) < MIN_CLIPS_PER_GENRE:
        raise GenresError(
            f"genre {genre!r} has clips of {counted(len(names), 'song')} only, going by their names "
            f"({', '.join(names)}): the split needs {MIN_CLIPS_PER_GENRE}, since no song may be on two sides; add "
            "other songs, or rename clips that are no parts of one"
        )


def _fronts(track_ids: Iterable[str], part: re.Pattern[str]) -> dict[str, str]:
    return {track: found[1] for track in track_ids if (found := part.fullmatch(track))}


# Blanks and brackets are as `safe_name` spells them.
_SEPARATOR, _WORD = r"(?:[._-]|~20)", r"(?:part|pt|segment|seg|chunk|clip|slice)"
_BY_WORD = rf"{_SEPARATOR}+{_WORD}{_SEPARATOR}*\d{{1,4}}"
_PART_OF_A_SONG = re.compile(rf"(.+?)(?:[._]\d{{1,4}}|{_BY_WORD})", re.IGNORECASE)
_PART_OF_A_NUMBER = re.compile(rf"(.+?)(?:{_SEPARATOR}+(?:\d{{1,4}}|~28\d{{1,4}}~29)|{_BY_WORD})", re.IGNORECASE)
_NUMBERED = re.compile(r"\d{3,}")


def _about_songs(table: "pd.DataFrame") -> str:
    """Return a sentence for `TrackSplit.why` about the genres whose songs are kept on one side; empty without any."""
    counts = {
        str(genre): len(set(found.values()))
        for genre, tracks in table.groupby("genre")["track_id"]
        if (found := songs(tracks, str(genre)))
    }
    if not counts:
        return ""
    named = ", ".join(f"{genre} {count}" for genre, count in counts.items())
    return f" By their names clips are parts of songs, each of which is on one side only; songs of each genre: {named}."


def _exclude_repeated_audio(table: "pd.DataFrame") -> "pd.DataFrame":
    """Keep one track of each piece of audio, or none if its labels disagree; `table` is sorted by track id."""
    table = table.copy()
    usable = table[table["part"] != EXCLUDED]
    for _, same in usable[usable["sha256"].duplicated(keep=False)].groupby("sha256"):
        if same["genre"].nunique() > 1:
            pairs = zip(same["track_id"], same["genre"], strict=True)
            labels = ", ".join(f"{track_id} as {genre}" for track_id, genre in pairs)
            table.loc[same.index, ["part", "reason"]] = [EXCLUDED, f"same audio under two genres: {labels}"]
        else:
            reason = f"same audio as {same['track_id'].iloc[0]}"
            table.loc[same.index[1:], ["part", "reason"]] = [EXCLUDED, reason]
    return table


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
