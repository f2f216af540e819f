"""What is known about GTZAN: its tracks, their checksums, its identical files and the fault-filtered split.

What belongs here: facts that name or number GTZAN's tracks (``gtzan_tracks.csv``, beside this module). What is done
with such facts is the same for every published dataset, and stands in `genres.datasets.published_dataset`.

Sources
-------
Track names and audio: G. Tzanetakis and P. Cook, "Musical genre classification of audio signals", IEEE
Transactions on Speech and Audio Processing 10(5), 2002. MD5 sums: those that mirdata checks the original files
against. Faults: B. L. Sturm, "The GTZAN dataset: its contents, its faults, their effects on evaluation, and
its future use", 2013, arXiv:1306.1461. Split: C. Kereliuk, B. L. Sturm and J. Larsen, "Deep learning and music
adversaries", IEEE Transactions on Multimedia 17(11), 2015.
"""

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from genres.datasets.published_dataset import PublishedDataset, PublishedTrack


@cache
def tracks() -> Mapping[str, PublishedTrack]:
    """Return all 1000 tracks by track id, sorted. A track's genre is the first part of its name."""
    text = files("genres.datasets").joinpath("gtzan_tracks.csv").read_text(encoding="ascii")
    rows = csv.DictReader(text.splitlines())
    return MappingProxyType(
        {
            row["track"]: PublishedTrack(
                row["track"], genre=row["track"].partition(".")[0], md5=row["md5"], part=row["filtered_part"]
            )
            for row in rows
        }
    )


GTZAN = PublishedDataset(name="gtzan", title="GTZAN", split_name="fault-filtered", read_tracks=tracks)
