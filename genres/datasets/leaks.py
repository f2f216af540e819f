"""Leaks between the sides of a split: what makes a figure better than the model is.

A pure function of a table: what to do about a leak is the caller's.
"""

from typing import TYPE_CHECKING, NamedTuple

from genres.plurals import counted

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    "digest": "identical audio or features",
    "song": "parts of one track",
    "artist": "tracks of one artist",
}
"""What must not be on two sides: columns of a table, and what equal values in each mean."""


class Leak(NamedTuple):
    """One kind of leak."""

    kind: str
    """A key of `KINDS`."""
    groups: int
    """How many values of it are on more than one side."""
    rows: int
    """How many rows these have outside of the training side."""
    example: tuple[str, ...]
    """Two tracks that the first of them has on different sides."""

    def __str__(self) -> str:
        """Return a sentence."""
        names = " and ".join(self.example)
        return (
            f"leak: {KINDS[self.kind]} on two sides of the split, {counted(self.groups, 'time')}, with "
            f"{counted(self.rows, 'row')} outside of training (first: {names}); figures of these rows are too good"
        )


def find_leaks(rows: "pd.DataFrame") -> list[Leak]:
    """Find what is on more than one side.

    Parameters
    ----------
    rows
        Columns ``track_id`` and ``part`` (rows of one part are on one side), and any of `KINDS`; a missing value means
        that nothing is known, and equals no other.
    """
    found = []
    for kind in KINDS:
        if kind not in rows:
            continue
        known = rows[rows[kind].notna()].sort_values("track_id")
        sides = known.groupby(kind)["part"].nunique()
        crossing = sides.index[sides > 1]
        if len(crossing):
            leaking = known[known[kind].isin(crossing)]
            first = leaking[leaking[kind] == leaking[kind].iloc[0]].drop_duplicates("part")
            outside = int((leaking["part"] != "train").sum())
            found.append(Leak(kind, len(crossing), outside, tuple(first["track_id"].iloc[:2])))
    return found
