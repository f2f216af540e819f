"""The migrations: what they create is what the code expects, and what a database holds survives them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from genres.errors import GenresError
from genres.store import quarantine
from genres.store.database import Database, _alembic_config
from genres.store.quarantine import RefusedClip
from genres.store.stream_ledger import commits, leases, results
from genres.store.stream_ledger.commits import QuarantinedClip
from genres.store.tables import (
    BATCH_PREDICTIONS,
    DATASETS,
    METADATA,
    QUARANTINE,
    SENT_FILES,
    STREAM_PREDICTIONS,
    STREAM_QUARANTINE,
    UtcDateTime,
)


@pytest.fixture
def database(empty_database: Database) -> Database:
    return empty_database


def upgrade(database: Database, revision: str) -> None:
    with database.writing() as connection:
        command.upgrade(_alembic_config(connection), revision)


def test_migrations_create_the_tables_of_the_code(database: Database) -> None:
    database.migrate()
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "target_metadata": METADATA})
        assert compare_metadata(context, METADATA) == []


def test_primary_keys_and_empty_columns_are_those_of_the_code(database: Database) -> None:
    # Alembic's comparison looks at neither primary keys nor, on SQLite, at every column's NOT NULL.
    database.migrate()
    made = sa.MetaData()
    made.reflect(database.engine)
    assert made.tables.keys() - {"alembic_version"} == METADATA.tables.keys()
    for name, table in METADATA.tables.items():
        assert [c.name for c in made.tables[name].primary_key] == [c.name for c in table.primary_key]
        assert {c.name: c.nullable for c in made.tables[name].columns} == {c.name: c.nullable for c in table.columns}


def row_of(table: sa.Table, number: int) -> dict[str, Any]:
    """Make a row that no other number gives, with a value in every column."""
    kinds = {sa.Integer: number, sa.BigInteger: 2**40 + number, sa.Float: number + 0.125, sa.Boolean: number % 2 == 0}
    kinds |= {sa.JSON: {"jazz": 0.75, "rock": number}, UtcDateTime: datetime(2026, 1, 2, 3, 4, 5, number, tzinfo=UTC)}

    def value(column: sa.Column[Any]) -> Any:
        length = getattr(column.type, "length", None)
        return kinds.get(type(column.type), f"{column.name} {number}"[:length])

    return {column.name: value(column) for column in table.columns}


RENAMED = {"feature_set": "feature_sets"}
"""Columns' names of before, and now."""


def old_tables(database: Database) -> list[sa.Table]:
    """The tables that the database has now, with the types of this code's columns."""
    made = sa.MetaData()
    made.reflect(database.engine)
    tables = [made.tables[name] for name in METADATA.tables if name in made.tables]
    for table in tables:
        for column in table.columns:
            column.type = METADATA.tables[table.name].c[RENAMED.get(column.name, column.name)].type
    return tables


TABLES = {"0001": 4, "0002": 10, "0003": 10, "0006": 11, "0007": 11, "0008": 12, "0009": 12, "0010": 12, "0011": 12}
TABLES |= {"0012": 12, "0013": 13, "0014": 13, "0015": 13, "0016": 13}
"""How many tables a revision has."""


@pytest.mark.parametrize("revision", TABLES)
def test_rows_of_every_table_survive_the_upgrade(database: Database, revision: str) -> None:
    upgrade(database, revision)
    before = {}
    for table in old_tables(database):
        before[table.name] = [row_of(table, number) for number in (1, 2)]
        with database.writing() as connection:
            connection.execute(sa.insert(table), before[table.name])
    assert len(before) == TABLES[revision]
    with pytest.raises(GenresError, match=f"at version {revision}, this code wants"):
        database.check_migrated()

    database.migrate()

    database.check_migrated()
    for row in before["quarantine"]:
        row |= {"track_id": "", "reason_code": ""}
    for row in before["datasets"]:
        if revision < "0009":
            row["feature_sets"] = row.pop("feature_set") if revision >= "0003" else "gtzan57"
        row.setdefault("chosen_at", row["registered_at"])
    for row in before.get("sent_files", ()) if revision < "0004" else ():
        row |= {"host": "", "ctime_ns": None, "inode": None, "topic_id": None}
    for row in before.get("stream_ranges", ()):
        row.setdefault("acknowledged_at", None)
    for row in before.get("stream_leases", ()):
        row.setdefault("shard", 0)
    for row in before.get("stream_quarantine", ()):
        if revision < "0007":
            row["genre"] = None
        row["reason_code"] = ""
        row |= {"suffix": "", "judged_by": "", "closed_at": None} if revision < "0006" else {}
    for row in before["batch_predictions"] if revision < "0005" else ():
        row["sha256"] = ""
    for row in before["batch_predictions"]:
        row.setdefault("stale_since", None)
    for row in [*before["batch_predictions"], *before.get("stream_predictions", ())]:
        for column in ("is_uncertain", "distance", "is_unlike", "over_time"):
            row.setdefault(column, None)
    with database.reading() as connection:
        for name, rows in before.items():
            query = sa.select(METADATA.tables[name]).order_by(*METADATA.tables[name].primary_key.columns)
            assert [dict(row._mapping) for row in connection.execute(query)] == rows


def test_a_refusal_that_did_not_say_its_topic_counts_as_one_of_any(database: Database) -> None:
    upgrade(database, "0006")
    (old,) = (table for table in old_tables(database) if table.name == "stream_quarantine")
    with database.writing() as connection:
        connection.execute(sa.insert(old), {**row_of(old, 1), "topic": None, "closed_at": None})
    database.migrate()
    (row,) = results.quarantine(database)
    assert (row["topic"], row["genre"]) == ("", None)


def test_a_clip_has_a_row_of_each_model_and_version(database: Database) -> None:
    upgrade(database, "0002")
    (table,) = (found for found in old_tables(database) if found.name == "stream_predictions")
    old = row_of(table, 1)
    with database.writing() as connection:
        connection.execute(sa.insert(table).values(old))
    database.migrate()
    rows = [{**old, "model_name": "another"}, {**old, "model_version": 2}, old]
    with database.writing() as connection:
        assert database.insert_new(connection, STREAM_PREDICTIONS, rows) == 2


def test_replaced_audio_has_a_row_beside_one_of_before(database: Database) -> None:
    upgrade(database, "0003")
    (table,) = (found for found in old_tables(database) if found.name == "batch_predictions")
    old = row_of(table, 1)
    with database.writing() as connection:
        connection.execute(sa.insert(table).values(old))
    database.migrate()
    rows = [{**old, "sha256": sha256} for sha256 in ("", "a" * 64, "b" * 64)]
    with database.writing() as connection:
        assert database.insert_new(connection, BATCH_PREDICTIONS, rows) == 2


def test_a_refusal_from_before_tracks_were_kept_stands_until_the_next_load(database: Database) -> None:
    upgrade(database, "0016")
    (table,) = (found for found in old_tables(database) if found.name == "quarantine")
    with database.writing() as connection:
        connection.execute(sa.insert(table), row_of(table, 1) | {"dataset": "mine", "stage": "raw_audio"})
    database.migrate()
    assert quarantine.refused(database, "mine") == [RefusedClip("", "file_name 1", "sha256 1", "raw_audio", "reason 1")]
    clips = [RefusedClip(track, "01.wav", "a" * 64, "raw_audio", "the file is empty") for track in ("jazz.1", "rock.1")]
    assert quarantine.replace(database, "mine", "raw_audio", clips, run_id="2") == 2
    assert quarantine.refused(database, "mine") == clips


def test_refusals_from_before_codes_were_kept_stay_beside_new_ones(database: Database) -> None:
    upgrade(database, "0017")
    old = {table.name: table for table in old_tables(database) if table.name in ("quarantine", "stream_quarantine")}
    batch = row_of(old["quarantine"], 1) | {"dataset": "mine"}
    stream = row_of(old["stream_quarantine"], 1) | {"topic": "clips", "closed_at": None}
    with database.writing() as connection:
        connection.execute(sa.insert(old["quarantine"]).values(batch))
        connection.execute(sa.insert(old["stream_quarantine"]).values(stream))
    database.migrate()
    clip = RefusedClip("rock.1", "01.wav", "a" * 64, "raw_audio", "the file is empty", "empty_file")
    quarantine.replace(database, "mine", "raw_audio", [clip], run_id="2")
    assert [clip.reason_code for clip in quarantine.refused(database, "mine")] == ["empty_file", ""]
    new = QuarantinedClip("b", "b.wav", "stream", "cut", ".wav", "gate5", topic="clips", reason_code="cut_short")
    assert commits.quarantine_clip(database, new)
    assert sorted(row["reason_code"] for row in results.quarantine(database, topic="clips")) == ["", "cut_short"]
    # Who refuses a clip says why: there is no code that is filled in.
    for table, row in ((QUARANTINE, batch), (STREAM_QUARANTINE, stream)):
        with pytest.raises(sa.exc.IntegrityError), database.writing() as connection:
            connection.execute(sa.insert(table).values(row | {"sha256": "another"}))


def test_a_path_has_a_row_of_each_host(database: Database) -> None:
    upgrade(database, "0003")
    (table,) = (table for table in old_tables(database) if table.name == "sent_files")
    old = row_of(table, 1)
    with database.writing() as connection:
        connection.execute(sa.insert(table).values(old))
    database.migrate()
    rows = [{**row_of(SENT_FILES, 1), "host": host} for host in ("", "here", "there")]
    with database.writing() as connection:
        assert database.insert_new(connection, SENT_FILES, rows) == 2


def test_a_lease_from_before_there_were_shards_is_that_of_shard_0(database: Database) -> None:
    upgrade(database, "0013")
    (table,) = (found for found in old_tables(database) if found.name == "stream_leases")
    now = datetime(2026, 1, 2, tzinfo=UTC)
    old = {"topic": "clips", "holder": "a run", "token": 7, "expires_at": now + timedelta(seconds=20)}
    with database.writing() as connection:
        connection.execute(sa.insert(table).values(old))
    database.migrate()
    assert set(leases.holders(database, "clips", 30, now=now)) == {0}
    assert leases.acquire(database, "clips", "another", 30, now=now) is None
    leases.renew(database, "clips", 7, 30, now=now)
    assert leases.acquire(database, "clips", "another", 30, shard=1, now=now) == 1
    assert set(leases.holders(database, "clips", 30, now=now)) == {0, 1}


def test_who_registers_a_dataset_says_which_features_it_has(database: Database) -> None:
    database.migrate()
    row = row_of(DATASETS, 1)
    del row["feature_sets"]
    with pytest.raises(sa.exc.IntegrityError), database.writing() as connection:
        connection.execute(sa.insert(DATASETS).values(row))


def test_results_are_found_by_their_topic(database: Database) -> None:
    database.migrate()
    columns = STREAM_PREDICTIONS.c
    query = sa.select(columns.sha256).where(columns.topic == "clips").order_by(columns.predicted_at.desc()).limit(10)
    explain = "EXPLAIN QUERY PLAN" if database.engine.dialect.name == "sqlite" else "EXPLAIN"
    with database.writing() as connection:
        if database.engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # on an empty table it costs nothing
        text = str(query.compile(database.engine, compile_kwargs={"literal_binds": True}))
        plan = str(connection.exec_driver_sql(f"{explain} {text}").all())
    assert "ix_stream_predictions_topic_predicted_at" in plan


def test_migrating_twice_changes_nothing(database: Database) -> None:
    database.migrate()
    database.migrate()
    database.check_migrated()
