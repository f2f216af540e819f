"""A table of clips with the windows of two feature sets, and the rows that it is cut into."""

from dataclasses import replace

import pyarrow as pa

from genres.audio.feature_set import JoinedFeatureSets
from genres.audio.librosa96 import LIBROSA96
from genres.store import schemas

Row = tuple[str, int | None, float, float, float]


def windows_of_two_sets() -> tuple[pa.Table, JoinedFeatureSets, list[Row]]:
    """Return three clips, of which one has windows of both sets, and the rows of clips and windows."""
    one = replace(LIBROSA96, name="one", columns=("a", "b"), contains=())
    other = replace(LIBROSA96, name="other", columns=("c",), contains=())
    joined = JoinedFeatureSets((one, other))
    columns = (
        schemas.Column("clip", "string", ""),
        *schemas.feature_columns(joined.columns),
        *schemas.window_columns(joined.windows_columns),
    )
    clips = [
        {"clip": "y", "a": 0.1, "b": 0.2, "c": 0.3, "windows_one": [[0.5, 0.25]], "windows_other": None},
        # The second set has a window less: of the third, only half is known.
        {
            "clip": "x",
            "a": 1.0,
            "b": 2.0,
            "c": 3.0,
            "windows_one": [[4, 5], [6, 7], [8, 9]],
            "windows_other": [[10], [11]],
        },
        {"clip": "z", "a": 7.0, "b": 8.0, "c": 9.0, "windows_one": None, "windows_other": [[1]]},
    ]
    rows: list[Row] = [
        ("y", None, 0.1, 0.2, 0.3),
        ("x", None, 1.0, 2.0, 3.0),
        ("z", None, 7.0, 8.0, 9.0),
        ("x", 0, 4.0, 5.0, 10.0),
        ("x", 1, 6.0, 7.0, 11.0),
    ]
    return pa.Table.from_pylist(clips, schema=schemas.arrow_schema(columns)), joined, rows
