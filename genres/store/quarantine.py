"""Quarantine: the clips that were refused, with the stage and the reason."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from genres.store.database import Database
from genres.store.sql import sa, tables


class RefusedClip(NamedTuple):
    """A clip that was refused at `stage`: ``raw_audio`` (the gate) or ``audio_features`` (decoding, features)."""

    track_id: str
    """An empty text in rows from before it was kept."""
    file_name: str
    sha256: str
    stage: str
    reason: str
    reason_code: str = ""
    """An empty text in rows from before it was kept."""


def replace(database: Database, dataset: str, stage: str, clips: Iterable[RefusedClip], *, run_id: str) -> int:
    """Make the clips the dataset's quarantine for a stage: what was fixed since leaves it.

    Returns
    -------
    int
        How many clips are quarantined at this stage now.
    """
    table, now = tables.QUARANTINE, datetime.now(UTC)
    rows = [{**clip._asdict(), "dataset": dataset, "run_id": run_id, "quarantined_at": now} for clip in clips]
    with database.writing() as connection:
        of_stage = (table.c.dataset == dataset) & (table.c.stage == stage)
        connection.execute(sa.delete(table).where(of_stage))
        return database.insert_new(connection, table, rows)


def refused(database: Database, dataset: str) -> list[RefusedClip]:
    """The dataset's quarantined clips, by file name and track."""
    table = tables.QUARANTINE
    columns = [table.c[name] for name in RefusedClip._fields]
    query = sa.select(*columns).where(table.c.dataset == dataset).order_by(table.c.file_name, table.c.track_id)
    with database.reading() as connection:
        return [RefusedClip(*row) for row in connection.execute(query)]


def rows(database: Database, dataset: str) -> list[dict[str, Any]]:
    """Return the dataset's quarantine as plain dictionaries, oldest first.

    A stage's rows have the time at which it was run last: it judges each of its clips again.
    """
    table = tables.QUARANTINE
    order = (table.c.quarantined_at, table.c.file_name, table.c.track_id)
    with database.reading() as connection:
        query = sa.select(table).where(table.c.dataset == dataset).order_by(*order)
        return [dict(row._mapping) for row in connection.execute(query)]
