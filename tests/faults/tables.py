"""What the fault tests print: Markdown tables, on the standard output and, if asked, in the page of the docs."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.faults.oracle import Counts

_FILE_VARIABLE = "FAULT_TABLES"
"""Names the page whose section is written; the targets of the Makefile set it."""


class Case(NamedTuple):
    """One injected fault: the clips that came meanwhile and how long it took until they had their rows."""

    fault: str
    counts: Counts
    recovery_s: float


def fault_table(cases: Sequence[Case]) -> str:
    """Return a row for each kind of fault."""
    lines = [
        "| fault | injected | clips in | predicted | refused | wrongly refused | missing | duplicate "
        "| recovery, median (s) | worst (s) |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for fault in dict.fromkeys(case.fault for case in cases):
        of_it = [case for case in cases if case.fault == fault]
        names = ("clips", "predicted", "refused", "wrongly_refused", "missing", "duplicate")
        sums = [sum(getattr(case.counts, name) for case in of_it) for name in names]
        seconds = [case.recovery_s for case in of_it]
        cells = [fault, len(of_it), *sums, f"{median(seconds):.1f}", f"{max(seconds):.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def publish(section: str, text: str) -> None:
    """Print a section, and write it into the page that the environment names, in the place of an older one."""
    print(f"\n## {section}\n\n{text}\n")  # noqa: T201
    if not (name := os.environ.get(_FILE_VARIABLE)):
        return
    page = Path(name)
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    written = f"{begin}\n## {section}\n\n{text}\n{end}\n"
    there = page.read_text() if page.exists() else ""
    place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}\n", re.DOTALL)
    page.write_text(place.sub(lambda _: written, there) if place.search(there) else f"{there.rstrip()}\n\n{written}")
