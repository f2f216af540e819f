"""The SQL database: how it is opened, migrated and written to. SQLite is the default, Postgres the other one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from genres.errors import GenresError
from genres.store.sql import sa

if TYPE_CHECKING:
    from alembic.config import Config

_BUSY_TIMEOUT_MS = 30_000
_POSTGRES_LIMITS = {
    **{"connect_timeout": 10, "tcp_user_timeout": 30_000},
    **{"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3},
}
"""How libpq notices a server that is gone without a word, within about half a minute: left to itself it waits for the
system, for minutes or hours. Seconds, but for the milliseconds of ``tcp_user_timeout``. A query may take as long as it
likes: the server's system answers meanwhile."""
_FULL = ("disk is full", "No space left on device")
"""What SQLite and Postgres say of a full disk."""
_LITTLE_ROOM_BYTES = 2**16
"""With less, SQLite cannot even open a file that nobody else has open, and has other words for why."""


class Database:
    """The project's SQL database.

    Parameters
    ----------
    url
        SQLAlchemy URL: ``sqlite:///path`` or ``postgresql+psycopg://…``.

    Raises
    ------
    GenresError
        If the URL can't be read or names another kind of database.
    """

    def __init__(self, url: str) -> None:
        try:
            self.url = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):  # the latter from a port that is no number
            # Neither chained nor quoted: the URL may hold a password.
            raise GenresError(
                "GENRES_DATABASE_URL is no SQLAlchemy URL: write sqlite:////<absolute path> or "
                "postgresql+psycopg://<user>@<host>/<database>"
            ) from None
        kind = self.url.get_backend_name()
        if kind not in {"sqlite", "postgresql"}:
            raise GenresError(f"GENRES_DATABASE_URL names a {kind} database: sqlite and postgresql are supported")
        if kind == "sqlite":
            _make_room(self.url.database or "")
        try:
            self.engine = sa.create_engine(self.url, connect_args=_limits(self.url))
        except sa.exc.NoSuchModuleError as error:
            raise GenresError(
                f"GENRES_DATABASE_URL names an unknown driver, {self.url.drivername}: write sqlite:////<absolute path> "
                "or postgresql+psycopg://<user>@<host>/<database>"
            ) from error
        except ModuleNotFoundError as error:
            raise GenresError(
                f"the driver of {self.url.drivername} is not installed: pip install 'genres[postgres]'"
            ) from error
        if kind == "sqlite":
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_immediate)

    @classmethod
    def opened(cls, url: str) -> Self:
        """Open the database, if its tables have this code's form.

        Raises
        ------
        GenresError
            As by the constructor and `check_migrated`.
        """
        database = cls(url)
        database.check_migrated()
        return database

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection for reading; it takes no write lock."""
        with (
            self._clearly(),
            self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Yield a connection inside one transaction, committed at the end or rolled back on an error."""
        with self._clearly(), self.engine.begin() as connection:
            yield connection

    def insert_new(self, connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> int:
        """Insert the rows whose primary key is new; the first write of a key wins.

        Returns
        -------
        int
            How many rows were new.
        """
        return len(self.insert_new_keys(connection, table, rows))

    def insert_new_keys(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]
    ) -> list[tuple[Any, ...]]:
        """Insert the rows whose primary key is new, as `insert_new` does, and return those keys, in any order."""
        if not rows:
            return []
        keys = list(table.primary_key.columns)
        statement = self._insert(table).on_conflict_do_nothing().returning(*keys)
        return [tuple(row) for row in connection.execute(statement, list(rows))]

    def upsert(self, connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        """Insert the rows, or write them over those of the same primary key; the last write wins.

        Parameters
        ----------
        rows
            Whole rows. Of two with one key the later one stands.
        """
        if not rows:
            return
        keys = list(table.primary_key.columns)
        statement = self._insert(table)
        changed = {column.name: column for column in statement.excluded if not column.primary_key}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), list(rows))

    def migrate(self) -> None:
        """Create the tables, or bring them to this version's form."""
        from alembic import command

        with self.writing() as connection:
            command.upgrade(_alembic_config(connection), "head")

    def check_migrated(self) -> None:
        """Refuse a database whose tables have another form than this code's.

        Raises
        ------
        GenresError
            If the tables are missing or of another version.
        """
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        with self.reading() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
            head = ScriptDirectory.from_config(_alembic_config(connection)).get_current_head()
        if current != head:
            raise GenresError(
                f"the tables of {self.url.render_as_string(hide_password=True)} are at version {current or 'none'}, "
                f"this code wants {head}: run `genres up`"
            )

    def _insert(self, table: sa.Table) -> Any:
        """Return an INSERT that can say what to do about a row that is there: the dialects have one each."""
        from sqlalchemy.dialects import postgresql, sqlite

        return {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[self.engine.dialect.name](table)

    @contextmanager
    def _clearly(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DataError, sa.exc.IntegrityError, sa.exc.NotSupportedError, sa.exc.ProgrammingError):
            raise  # mistakes of the code
        except (sa.exc.DatabaseError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
            if isinstance(error, sa.exc.InternalError):
                # What a server says that has become a replica, and so read-only, or has ended our transaction. The
                # connections that are kept are to that one: new ones lead to the one that has taken its place.
                self.engine.dispose()
            said = str(error.orig if isinstance(error, sa.exc.DBAPIError) else error.args[0])
            why = (said.strip().splitlines() or [type(error).__name__])[0]
            name = self.url.render_as_string(hide_password=True)
            if self._is_full(why):
                raise GenresError(
                    f"the disk of the database {name} is full ({why}): make room, and what waits goes on"
                ) from error
            raise GenresError(
                f"the database {name} cannot be used ({why}): check GENRES_DATABASE_URL and that the server runs and "
                "takes writes"
            ) from error

    def _is_full(self, why: str) -> bool:
        if any(sign in why for sign in _FULL):
            return True
        file = Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None
        return file is not None and file.exists() and shutil.disk_usage(file).free < _LITTLE_ROOM_BYTES


def _limits(url: sa.URL) -> dict[str, int]:
    """Return the time limits towards a Postgres server, as far as its URL says nothing else."""
    if url.get_backend_name() == "sqlite" or not url.get_driver_name().startswith("psycopg"):  # the others' have others
        return {}
    return {name: limit for name, limit in _POSTGRES_LIMITS.items() if name not in url.query}


def _make_room(path: str) -> None:
    # Dagster's processes have other working folders: a relative path would be another database in each.
    if not Path(path).is_absolute():
        raise GenresError(
            f"GENRES_DATABASE_URL: {path!r} is not an absolute path: write sqlite:////<absolute path> (four slashes)"
        )
    try:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # often the state folder
    except OSError as error:
        raise GenresError(
            f"there can be no database {path}: {error.filename}: {error.strerror}; fix GENRES_DATABASE_URL or "
            "GENRES_STATE_DIR"
        ) from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transaction control begins deferred transactions; ours are begun in `_begin_immediate`.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_immediate(connection: sa.Connection) -> None:
    # A deferred transaction that reads first and writes later fails at once when another writer came between;
    # an immediate one queues for the busy timeout.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _alembic_config(connection: sa.Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
