"""The database: one line for whatever is wrong with it, the first write of a key wins, writers queue."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from genres.errors import GenresError
from genres.store.database import Database

WRITERS, WRITES = 4, 50
COUNTER = sa.Table("counter", sa.MetaData(), sa.Column("name", sa.Text, primary_key=True), sa.Column("n", sa.Integer))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path / 'new' / 'genres.db'}")
    with database.writing() as connection:
        COUNTER.create(connection)
        connection.execute(sa.insert(COUNTER).values(name="all", n=0))
    return database


def count_up(url: str) -> None:
    """Read, then write, in one transaction: what a deferred BEGIN gets wrong."""
    database = Database(url)
    for _ in range(WRITES):
        with database.writing() as connection:
            n = connection.scalar(sa.select(COUNTER.c.n).where(COUNTER.c.name == "all"))
            connection.execute(sa.update(COUNTER).values(n=n + 1))


def counted(database: Database) -> int:
    with database.reading() as connection:
        return connection.scalar(sa.select(COUNTER.c.n).where(COUNTER.c.name == "all"))


def test_threads_queue_and_lose_nothing(database: Database) -> None:
    threads = [threading.Thread(target=count_up, args=(str(database.url),)) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted(database) == WRITERS * WRITES


def test_processes_queue_and_lose_nothing(database: Database) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(count_up, [str(database.url)] * 2)
        # Not ended by SIGTERM: in the background, shells start the tests deaf to it, and what they start.
        pool.close()
        pool.join()
    assert counted(database) == 2 * WRITES


def test_the_last_write_of_a_key_wins_an_upsert(empty_database: Database) -> None:
    table = COUNTER.to_metadata(sa.MetaData())
    with empty_database.writing() as connection:
        table.create(connection)
        empty_database.upsert(connection, table, [{"name": "a", "n": 1}, {"name": "b", "n": 2}])
        empty_database.upsert(connection, table, [])
    with empty_database.writing() as connection:
        empty_database.upsert(connection, table, [{"name": "b", "n": 3}, {"name": "c", "n": 4}, {"name": "b", "n": 5}])
        rows = connection.execute(sa.select(table).order_by(table.c.name)).all()
    assert rows == [("a", 1), ("b", 5), ("c", 4)]


def test_upserts_of_two_connections_wait_for_each_other(empty_database: Database) -> None:
    table = COUNTER.to_metadata(sa.MetaData())
    with empty_database.writing() as connection:
        table.create(connection)
    other = Database(empty_database.url.render_as_string(hide_password=False))
    begun = threading.Event()

    def write_too() -> None:
        begun.set()
        with other.writing() as connection:
            other.upsert(connection, table, [{"name": "a", "n": 2}])

    with ThreadPoolExecutor(1) as pool:
        with empty_database.writing() as connection:
            # Deleting and inserting instead would break the second one: neither sees the other's row to delete.
            empty_database.upsert(connection, table, [{"name": "a", "n": 1}])
            second = pool.submit(write_too)
            assert begun.wait(10)
            time.sleep(0.2)
            assert not second.done()
        second.result(timeout=60)
    with empty_database.reading() as connection:
        assert connection.execute(sa.select(table)).all() == [("a", 2)]
    other.engine.dispose()


def test_readers_are_not_kept_waiting_by_a_writer(database: Database) -> None:
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    with database.writing() as connection:
        connection.execute(sa.update(COUNTER).values(n=7))
        assert counted(database) == 0
    assert counted(database) == 7


def test_an_error_rolls_everything_back(database: Database) -> None:
    with pytest.raises(KeyError), database.writing() as connection:
        connection.execute(sa.update(COUNTER).values(n=7))
        raise KeyError
    assert counted(database) == 0


def test_first_write_of_a_key_wins(database: Database) -> None:
    with database.writing() as connection:
        assert database.insert_new(connection, COUNTER, []) == 0
        assert database.insert_new(connection, COUNTER, [{"name": "a", "n": 1}, {"name": "b", "n": 1}]) == 2
        # Also within one call, and beside rows that are new.
        assert database.insert_new(connection, COUNTER, [{"name": name, "n": 2} for name in "abcc"]) == 1
    with database.reading() as connection:
        rows = dict(connection.execute(sa.select(COUNTER)).tuples().all())
    assert rows == {"all": 0, "a": 1, "b": 1, "c": 2}


def test_many_rows_at_once_are_counted_right(database: Database) -> None:
    rows = [{"name": str(n), "n": n} for n in range(5000)]
    with database.writing() as connection:
        assert database.insert_new(connection, COUNTER, rows[:1500]) == 1500
        assert database.insert_new(connection, COUNTER, rows) == 3500


def test_tables_are_migrated_once_and_again(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    with pytest.raises(GenresError, match=r"genres\.db are at version none, this code wants \w+: run `genres up`"):
        database.check_migrated()
    database.migrate()
    database.migrate()
    database.check_migrated()
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(GenresError, match="at version 9999"):
        database.check_migrated()


def test_migrations_make_the_tables_that_the_code_knows(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from genres.store.tables import METADATA

    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    database.migrate()
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("genres.db", "GENRES_DATABASE_URL is no SQLAlchemy URL"),
        ("postgresql+psycopg://me:hunter2@host:port/genres", "GENRES_DATABASE_URL is no SQLAlchemy URL"),
        ("mysql://me:hunter2@host/genres", "names a mysql database: sqlite and postgresql are supported"),
        ("sqlite+nosuch:////tmp/genres.db", "an unknown driver, sqlite\\+nosuch: write sqlite"),
        ("postgresql+pg8000://me:hunter2@host/genres", "the driver of postgresql\\+pg8000 is not installed"),
        ("sqlite:///genres.db", "'genres.db' is not an absolute path: write sqlite:////"),
        ("sqlite://", "is not an absolute path: write sqlite:////"),
    ],
)
def test_a_url_that_cannot_work_is_refused_in_a_line(url: str, said: str) -> None:
    with pytest.raises(GenresError, match=said) as refused:
        Database(url)
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_database_that_does_not_answer_is_named_without_its_password() -> None:
    database = Database("postgresql+psycopg://me:hunter2@127.0.0.1:1/genres?connect_timeout=2")
    with pytest.raises(GenresError, match=r"postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/genres") as refused:
        database.check_migrated()
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (sa.exc.InterfaceError("SELECT 1", {}, Exception("the connection is closed\nDETAIL: so")), "is closed"),
        (sa.exc.InternalError("SELECT 1", {}, Exception("could not read block 7")), "could not read block 7"),
        (sa.exc.OperationalError("SELECT 1", {}, Exception("")), "OperationalError"),
        (sa.exc.TimeoutError("QueuePool limit of size 5 reached"), "QueuePool limit of size 5 reached"),
    ],
)
def test_whatever_the_server_does_is_one_line(database: Database, error: Exception, why: str) -> None:
    with (
        pytest.raises(GenresError, match=rf"genres\.db cannot be used \([^\n]*{why}\): check") as said,
        database.reading(),
    ):
        raise error
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("kind", [sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError])
def test_a_mistake_of_the_code_stays_what_it_is(database: Database, kind: type[sa.exc.DBAPIError]) -> None:
    with pytest.raises(kind), database.writing():
        raise kind("SELECT 1", {}, Exception("no such column"))


def test_a_server_that_has_become_a_replica_is_said_and_left(new_postgres_database: Callable[[], str]) -> None:
    """Connections that are kept would lead to it for ever, while the address leads to the new primary."""
    database = Database(new_postgres_database())
    with database.writing() as connection:
        COUNTER.create(connection)
    with database.reading() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = on")  # of this connection, which is kept
    with (
        pytest.raises(GenresError, match=r"cannot execute INSERT in a read-only transaction.*takes writes"),
        database.writing() as connection,
    ):
        database.insert_new(connection, COUNTER, [{"name": "a", "n": 1}])
    with database.writing() as connection:
        assert database.insert_new(connection, COUNTER, [{"name": "a", "n": 1}]) == 1
    database.engine.dispose()


def test_a_transaction_that_the_server_has_ended_is_said_in_a_line(new_postgres_database: Callable[[], str]) -> None:
    database = Database(new_postgres_database())
    with (
        pytest.raises(GenresError, match="idle-in-transaction timeout"),
        database.writing() as connection,
    ):
        connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 1")
        time.sleep(0.5)
        connection.exec_driver_sql("SELECT 1")
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    database.engine.dispose()


def test_postgres_is_not_waited_for_longer_than_the_url_or_a_default_says(
    new_postgres_database: Callable[[], str],
) -> None:
    url = new_postgres_database()
    limits = {}
    for more in ("", f"{'&' if '?' in url else '?'}connect_timeout=2&keepalives_idle=60"):
        database = Database(url + more)
        with database.reading() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            limits[more[1:]] = driver.info.get_parameters()
        database.engine.dispose()
    default, own = limits.values()
    wanted = {
        **{"connect_timeout": "10", "tcp_user_timeout": "30000"},
        **{"keepalives_idle": "15", "keepalives_interval": "5", "keepalives_count": "3"},
    }
    assert {name: default[name] for name in wanted} == wanted
    assert {name: own[name] for name in wanted} == {**wanted, "connect_timeout": "2", "keepalives_idle": "60"}


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are notes, not tables " * 100)
    with pytest.raises(GenresError, match=r"notes\.txt cannot be used \(file is not a database\)"):
        Database(f"sqlite:///{file}").check_migrated()
    with pytest.raises(GenresError, match=r"notes\.txt"):
        Database(f"sqlite:///{file}/genres.db")
