"""The SQL tables, as the code of this version knows them. ``genres/store/migrations`` creates and changes them.

What their columns are stands in ``genres.store.schemas``; here it becomes SQL, with the indices.
"""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from genres.store import schemas

METADATA = sa.MetaData(naming_convention={"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s"})


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware time. SQLite keeps no zone: what is written is turned to UTC, and what is read says so."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Turn an aware time to UTC."""
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return the time with its zone."""
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


_TYPES: dict[schemas.Kind, sa.types.TypeEngine[Any]] = {
    "smallint": sa.SmallInteger(),
    "int": sa.Integer(),
    "bigint": sa.BigInteger(),
    "double": sa.Float(),
    "boolean": sa.Boolean(),
    "timestamp": UtcDateTime(),
    # None is no value, and not JSON's null.
    "json": sa.JSON(none_as_null=True),
}


def _table(schema: schemas.Table, *indices: sa.schema.SchemaItem) -> sa.Table:
    columns = [
        sa.Column(column.name, _type(column), primary_key=column.key, nullable=column.nullable)
        for column in schema.columns
    ]
    return sa.Table(schema.name, METADATA, *columns, *indices, comment=schema.description)


def _type(column: schemas.Column) -> sa.types.TypeEngine[Any]:
    if column.kind == "string":
        return sa.Text() if column.max_length is None else sa.String(column.max_length)
    return _TYPES[column.kind]


DATASETS = _table(schemas.DATASETS)
LAKE_COMMITS = _table(
    schemas.LAKE_COMMITS,
    sa.UniqueConstraint("path"),
    sa.Index("ix_lake_commits_dataset_table_name", "dataset", "table_name"),
)
QUARANTINE = _table(schemas.QUARANTINE)
BATCH_PREDICTIONS = _table(schemas.BATCH_PREDICTIONS)
CHAMPION_CHANGES = _table(schemas.CHAMPION_CHANGES, sa.Index("ix_champion_changes_dataset", "dataset"))
SENT_FILES = _table(
    schemas.SENT_FILES,
    sa.Index("ix_sent_files_path", "path"),
    sa.Index("ix_sent_files_position", "topic", "topic_id", "kafka_partition", "kafka_offset"),
)
CONFIRMED_MESSAGES = _table(schemas.CONFIRMED_MESSAGES)
PRODUCERS = _table(schemas.PRODUCERS)
STREAM_RANGES = _table(
    schemas.STREAM_RANGES,
    sa.Index("ix_stream_ranges_position", "topic", "topic_id", "kafka_partition", "end_offset"),
    sa.Index("ix_stream_ranges_newest", "topic", "state", "planned_at", "kafka_partition", "start_offset"),
)
STREAM_LEASES = _table(schemas.STREAM_LEASES)
STREAM_PREDICTIONS = _table(
    schemas.STREAM_PREDICTIONS,
    sa.Index("ix_stream_predictions_predicted_at", "predicted_at"),
    sa.Index("ix_stream_predictions_topic_predicted_at", "topic", "predicted_at"),
)
STREAM_QUARANTINE = _table(schemas.STREAM_QUARANTINE)
STREAM_CHECKS = _table(schemas.STREAM_CHECKS)
