"""Leases: who drains a shard of a topic, and what keeps a run that was overtaken from writing.

Leases keep runs out of each other's way. That no clip is done twice rests on the ledger instead, where the first write
of a range and of a row wins: runs whose shards overlap, because there are more or fewer of them since, do no harm.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

from genres.errors import GenresError
from genres.store.database import Database
from genres.store.sql import OnFirstUse, sa, tables
from genres.store.stream_ledger.transaction import writing

_LEASE: Any = OnFirstUse(lambda: tables.STREAM_LEASES.c)
_RESIDENT = "resident"


class Resident(NamedTuple):
    """A process that holds a lease also while it has nothing to do (``genres drain``); other holders are runs."""

    host: str
    pid: int
    started: float
    """When it started, as a timestamp: another process gets its number some day."""

    @classmethod
    def parse(cls, holder: str) -> Self | None:
        """Read the name of a lease's holder; None if it is a run."""
        kind, _, rest = holder.partition(" ")
        if kind != _RESIDENT:
            return None
        host, pid, started = rest.split()
        return cls(host, int(pid), float(started))

    @property
    def holder(self) -> str:
        """Its name as a lease's holder."""
        return f"{_RESIDENT} {self.process}"

    @property
    def process(self) -> str:
        """Host, process id and start, as the runs that are forked have it in a tag."""
        return f"{self.host} {self.pid} {self.started}"

    def describe(self) -> str:
        """Return what people call it."""
        return f"`genres drain` (pid {self.pid} on {self.host})"


class FencedError(GenresError):
    """The run has lost its lease to another one, which does its work: it must stop, and has written nothing."""


def acquire(
    database: Database, topic: str, holder: str, lease_s: float, *, shard: int = 0, now: datetime | None = None
) -> int | None:
    """Take a shard's lease, if it is free, expired or the holder's own.

    A lease that would run for much longer than leases do is of a time before the clock went back, and counts as
    expired; a holder that lives has renewed it since.

    Returns
    -------
    int | None
        The fencing token, larger with every new holder; None if another one holds the lease.
    """
    now = now or datetime.now(UTC)
    with writing(database, topic) as connection:
        lease = connection.execute(sa.select(tables.STREAM_LEASES).where(_of(topic, shard))).one_or_none()
        if lease is not None and lease.holder != holder and _runs(lease.expires_at, now, lease_s):
            return None
        if lease is None:
            token = 1
        else:
            token = lease.token if lease.holder == holder else lease.token + 1
            connection.execute(sa.delete(tables.STREAM_LEASES).where(_of(topic, shard)))
        connection.execute(
            sa.insert(tables.STREAM_LEASES).values(
                topic=topic, shard=shard, holder=holder, token=token, expires_at=now + timedelta(seconds=lease_s)
            )
        )
        return token


def holders(database: Database, topic: str, lease_s: float, *, now: datetime | None = None) -> dict[int, str]:
    """Return who holds each shard's lease now: a run, by its id, or a `Resident`; the others' shards are left out.

    Leases are renewed for `lease_s` seconds.
    """
    query = sa.select(_LEASE.shard, _LEASE.holder, _LEASE.expires_at).where(_LEASE.topic == topic, _LEASE.holder != "")
    now = now or datetime.now(UTC)
    with database.reading() as connection:
        found = connection.execute(query.order_by(_LEASE.shard))
        return {shard: holder for shard, holder, until in found if _runs(until, now, lease_s)}


def renew(
    database: Database, topic: str, token: int, lease_s: float, *, shard: int = 0, now: datetime | None = None
) -> None:
    """Hold the lease for another `lease_s` seconds from now.

    Raises
    ------
    FencedError
        If another holder has taken it over. One that only expired is still good.
    """
    now = now or datetime.now(UTC)
    with writing(database, topic) as connection:
        check_fence(connection, topic, token, shard=shard)
        until = now + timedelta(seconds=lease_s)
        connection.execute(sa.update(tables.STREAM_LEASES).where(_of(topic, shard)).values(expires_at=until))


def release(database: Database, topic: str, token: int, *, shard: int = 0, now: datetime | None = None) -> None:
    """Let the next holder in at once; nothing happens if there is one already."""
    mine = _of(topic, shard) & (_LEASE.token == token)
    with writing(database, topic) as connection:
        # Without a holder, the same run coming back is a new one too and gets a new token.
        connection.execute(
            sa.update(tables.STREAM_LEASES).where(mine).values(holder="", expires_at=now or datetime.now(UTC))
        )


def _of(topic: str, shard: int) -> sa.ColumnElement[bool]:
    return (_LEASE.topic == topic) & (_LEASE.shard == shard)


def _runs(expires_at: datetime, now: datetime, lease_s: float) -> bool:
    return now < expires_at <= now + 2 * timedelta(seconds=lease_s)


def check_fence(connection: sa.Connection, topic: str, token: int, *, shard: int = 0) -> None:
    """Refuse a run that was overtaken, within the transaction that it writes in.

    Raises
    ------
    FencedError
        If the shard's lease has another token.
    """
    current = connection.scalar(sa.select(_LEASE.token).where(_of(topic, shard)))
    if current != token:
        raise FencedError(
            f"the lease on shard {shard} of topic '{topic}' has moved on (token {token}, now {current}): another run "
            "took over, this one writes nothing more; nothing is to be done"
        )
