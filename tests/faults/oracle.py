"""The oracle of the fault tests: what has to hold once the dust has settled, whatever was done to the stack.

It is told which clips were handed in, the good ones and the bad ones, and looks at what is kept: rows, ranges,
databases, tables. It asks no part of the pipeline how it went. Every function returns what is wrong; nothing means
that all is well.
"""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from genres.settings import Settings
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.stream_ledger import ranges, results
from genres.store.stream_ledger.values import StreamRange
from streaming_sensors.topic import TopicState, topic_state


@dataclass(frozen=True)
class Counts:
    """Where the clips that were handed in have ended."""

    clips: int
    """Distinct clips, good and bad."""
    predicted: int
    refused: int
    wrongly_predicted: int
    wrongly_refused: int
    missing: int
    """Clips without a row."""
    duplicate: int
    """Rows beyond the first of a clip."""
    extra: int
    """Clips with a row that nobody handed in."""

    @property
    def problems(self) -> list[str]:
        """What is wrong with them, a line each."""
        wrong = ("wrongly_predicted", "wrongly_refused", "missing", "duplicate", "extra")
        return [f"{getattr(self, name)} {name.replace('_', ' ')}" for name in wrong if getattr(self, name)]


def count(good: Collection[str], bad: Collection[str], predicted: Iterable[str], refused: Iterable[str]) -> Counts:
    """Compare the clips that were handed in with the rows that there are, all by sha256.

    Parameters
    ----------
    good, bad
        Clips that have to be predicted and refused.
    predicted, refused
        The hash of every row of predictions, and of every refusal that stands.
    """
    good, bad = set(good), set(bad)
    predicted, refused = Counter(predicted), Counter(refused)
    given = good | bad
    rows = predicted + refused
    return Counts(
        clips=len(given),
        predicted=len(given & predicted.keys()),
        refused=len(given & refused.keys()),
        wrongly_predicted=len(bad & predicted.keys()),
        wrongly_refused=len(good & refused.keys()),
        missing=len(given - rows.keys()),
        duplicate=sum(number - 1 for number in rows.values()),
        extra=len(rows.keys() - given),
    )


def damaged_databases(files: Iterable[Path]) -> list[str]:
    """Return which SQLite files are not whole."""
    problems = []
    for file in files:
        try:
            connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)
            try:
                said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            finally:
                connection.close()
        except sqlite3.DatabaseError as error:
            said = [str(error)]
        if said != ["ok"]:
            problems.append(f"{file.name} is damaged: {said[0]}")
    return problems


def unreadable_tables(lake: Lake, row_counts: Mapping[str, int]) -> list[str]:
    """Return which published Parquet tables cannot be read whole, or have another number of rows than was published."""
    problems = []
    for path, row_count in row_counts.items():
        try:
            found = len(lake.read_table([path]))
        except Exception as error:  # whatever it is, nobody can read that table
            problems.append(f"{path} cannot be read: {error}")
            continue
        if found != row_count:
            problems.append(f"{path} has {found} rows, {row_count} were published")
    return problems


def misplanned(known: Iterable[StreamRange], state: TopicState) -> list[str]:
    """Return what is wrong with a topic's ranges: every offset that can be read is committed in exactly one of them."""
    problems = []
    live = [found for found in known if found.state != "split"]
    problems += [f"{found.key} waits: {found.reason}" for found in live if found.state == "planned"]
    covered = Counter(
        (found.key.kafka_partition, offset)
        for found in live
        if found.key.topic_id == state.topic_id
        for offset in range(found.key.start_offset, found.key.end_offset)
    )
    problems += [f"offset {where} is in {times} ranges" for where, times in covered.items() if times > 1]
    given_up = Counter(
        (found.key.kafka_partition, offset)
        for found in live
        if found.key.topic_id == state.topic_id and found.state == "lost"
        for offset in range(found.key.start_offset, found.key.end_offset)
    )
    for number, end in state.ends.items():
        for offset in range(state.beginnings[number], end):
            if (number, offset) not in covered:
                problems.append(f"offset {(number, offset)} is in no range")
            elif (number, offset) in given_up:
                problems.append(f"offset {(number, offset)} is given up as lost and can be read")
    return problems


def stored_counts(
    database: Database, topic: str, good: Collection[str], bad: Collection[str], *, only: Collection[str] | None = None
) -> Counts:
    """Count the rows of a topic.

    Parameters
    ----------
    only
        Look at the rows of these clips alone, so that no row can be an extra one.
    """
    predicted = [row["sha256"] for row in results.predictions(database, topic=topic)]
    refused = [row["sha256"] for row in results.quarantine(database, topic=topic)]
    if only is not None:
        predicted = [sha256 for sha256 in predicted if sha256 in only]
        refused = [sha256 for sha256 in refused if sha256 in only]
    return count(good, bad, predicted, refused)


def examine(settings: Settings, *, good: Collection[str], bad: Collection[str]) -> tuple[Counts, list[str]]:
    """Look at everything that is kept of the settings' default stream.

    Returns
    -------
    Counts
        Of the clips.
    list[str]
        What is wrong, with the clips or anything else, a line each.
    """
    database = Database(settings.database)
    counts = stored_counts(database, settings.topic, good, bad)
    known = ranges.history(database, settings.topic)
    published = {
        found.feature_path: found.clip_count
        for found in known
        if found.state == "committed" and found.feature_path is not None and found.clip_count is not None
    }
    files = [Path(database.url.database or "")] if database.url.get_backend_name() == "sqlite" else []
    files += sorted(settings.dagster_home.rglob("*.db"))
    problems = [
        *counts.problems,
        *damaged_databases(files),
        *unreadable_tables(Lake.of(settings), published),
        *misplanned(known, topic_state(settings, settings.topic, timeout_s=60)),
    ]
    return counts, problems
