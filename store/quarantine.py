"""Quarantine: the clips that were refused, with the stage and the reason."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa

from store.database import Database
from store.tables import QUARANTINE


class RefusedClip(NamedTuple):
    """A clip that was refused at `stage`: ``raw_audio`` (the gate) or ``audio_features`` (decoding, features)."""

    file_name: str
    sha256: str
    stage: str
    reason: str


def replace(database: Database, dataset: str, stage: str, clips: Iterable[RefusedClip], *, run_id: str) -> int:
    """Make the clips the dataset's quarantine for a stage: what was mended since leaves it.

    Returns
    -------
    int
        How many clips are quarantined at this stage now.
    """
    now = datetime.now(UTC)
    rows = [{**clip._asdict(), "dataset": dataset, "run_id": run_id, "quarantined_at": now} for clip in clips]
    with database.writing() as connection:
        connection.execute(
            sa.delete(QUARANTINE).where((QUARANTINE.c.dataset == dataset) & (QUARANTINE.c.stage == stage))
        )
        return database.insert_new(connection, QUARANTINE, rows)


def refused(database: Database, dataset: str) -> list[RefusedClip]:
    """The dataset's quarantined clips, by file name."""
    columns = [QUARANTINE.c[name] for name in RefusedClip._fields]
    query = sa.select(*columns).where(QUARANTINE.c.dataset == dataset).order_by(QUARANTINE.c.file_name)
    with database.reading() as connection:
        return [RefusedClip(*row) for row in connection.execute(query)]
