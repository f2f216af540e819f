"""The migrations: what they create is what the code expects, and what a database holds survives them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from genres.errors import GenresError
from genres.store.database import Database, _alembic_config
from genres.store.tables import DATASETS, METADATA


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path / 'genres.db'}")


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


def test_rows_of_the_batch_half_survive_the_upgrade(database: Database) -> None:
    upgrade(database, "0001")
    row = {
        "dataset": "gtzan",
        "source_folder": "/audio",
        "is_synthetic": False,
        "registered_at": datetime(2026, 1, 2, 3, tzinfo=UTC),
    }
    with database.writing() as connection:
        connection.execute(sa.insert(DATASETS).values(row))
    with pytest.raises(GenresError, match="at version 0001, this code wants"):
        database.check_migrated()

    database.migrate()

    database.check_migrated()
    with database.reading() as connection:
        assert [dict(found._mapping) for found in connection.execute(sa.select(DATASETS))] == [row]


def test_migrating_twice_changes_nothing(database: Database) -> None:
    database.migrate()
    database.migrate()
    database.check_migrated()
