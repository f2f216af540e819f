"""What ``genres quarantine`` finds: the refused clips of the streams and of a dataset, as plain rows."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from genres.errors import GenresError
from genres.settings import Settings
from genres.store import quarantine
from genres.store.database import Database
from genres.store.ledger import dataset_meant, registered_dataset
from genres.store.stream_ledger import results


def of_streams(
    settings: Settings,
    database: Database,
    *,
    sha256: Sequence[str] = (),
    reason: str = "",
    since: datetime | None = None,
    older_versions: bool = False,
    history: bool = False,
) -> list[dict[str, Any]]:
    """Return the refused clips of all streams that are like that, oldest first.

    Parameters
    ----------
    sha256
        Beginnings of hashes; those of any of them.
    reason
        What the reason holds, or its code.
    since
        From when on, in UTC whatever its zone says.
    older_versions
        Only those that another version refused than would judge them now.
    history
        Those too that were accepted or judged again since.
    """
    rows = _alike(results.quarantine(database, history=history), sha256, reason, since)
    if older_versions and rows:
        from streaming_sensors.quarantine_retry import judged_by_older

        return judged_by_older(settings, database, rows)
    return rows


def of_dataset(
    settings: Settings,
    database: Database,
    dataset: str,
    *,
    sha256: Sequence[str] = (),
    reason: str = "",
    since: datetime | None = None,
) -> tuple[str, list[dict[str, Any]]]:
    """Return a dataset's id and its refused clips that are like that, oldest first.

    Parameters
    ----------
    dataset
        Its id; empty for the current one.
    sha256, reason, since
        See `of_streams`. Each load judges again, and dates what it refuses.

    Raises
    ------
    GenresError
        If there is no dataset of this id.
    """
    if dataset:
        registered_dataset(database, dataset)  # or an unknown one would look like one without refused clips
    meant = dataset_meant(database, **settings.meaning(dataset))
    return meant, _alike(quarantine.rows(database, meant), sha256, reason, since)


def to_send_again(
    settings: Settings, sha256: Sequence[str], reason: str, since: datetime | None, *, older_versions: bool
) -> list[dict[str, Any]]:
    """Return the refused clips of the streams that are to be sent again.

    Raises
    ------
    GenresError
        If nothing chooses them, or nothing is chosen.
    """
    if not (any(sha256) or reason or since or older_versions):
        raise GenresError(
            "say which clips: by the beginning of their sha256, --reason, --since or --older-versions "
            "(`genres quarantine list`)"
        )
    database = Database.opened(settings.database)
    rows = of_streams(settings, database, sha256=sha256, reason=reason, since=since, older_versions=older_versions)
    shown = "`genres quarantine list` shows those that there are; a dataset's are judged again by loading it"
    for beginning in sha256:
        if not any(row["sha256"].startswith(beginning) for row in rows):
            raise GenresError(f"no such refused clip of a stream: {beginning} ({shown})")
    if not rows:
        raise GenresError(f"no refused clip of a stream is like that: {shown}")
    return rows


def _alike(
    rows: list[dict[str, Any]], sha256: Sequence[str], reason: str, since: datetime | None
) -> list[dict[str, Any]]:
    return [
        row
        for row in rows
        if (not sha256 or row["sha256"].startswith(tuple(filter(None, sha256))))
        and (reason in row["reason"] or reason == row["reason_code"])
        and (since is None or row["quarantined_at"] >= since.replace(tzinfo=UTC))
    ]
