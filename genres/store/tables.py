"""The SQL tables, as the code of this version knows them. ``genres/store/migrations`` creates and changes them."""

from datetime import UTC, datetime

import sqlalchemy as sa

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


_UTC = UtcDateTime()

DATASETS = sa.Table(
    "datasets",
    METADATA,
    sa.Column("dataset", sa.String(40), primary_key=True),
    sa.Column("source_folder", sa.Text, nullable=False),
    sa.Column("is_synthetic", sa.Boolean, nullable=False),
    sa.Column("feature_set", sa.String(40), nullable=False),
    sa.Column("registered_at", _UTC, nullable=False),
    comment="The labelled datasets; one partition of the batch assets each.",
)

LAKE_COMMITS = sa.Table(
    "lake_commits",
    METADATA,
    sa.Column("commit_id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("dataset", sa.String(40), nullable=False),
    sa.Column("table_name", sa.String(40), nullable=False),
    sa.Column("path", sa.Text, nullable=False, unique=True),
    sa.Column("row_count", sa.Integer, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("committed_at", _UTC, nullable=False),
    sa.Index("ix_lake_commits_dataset_table_name", "dataset", "table_name"),
    comment="The ledger: which Parquet on HDFS is published.",
)

QUARANTINE = sa.Table(
    "quarantine",
    METADATA,
    sa.Column("dataset", sa.String(40), primary_key=True),
    sa.Column("file_name", sa.Text, primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("stage", sa.String(40), primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("quarantined_at", _UTC, nullable=False),
    comment="Clips that were refused, and why.",
)

BATCH_PREDICTIONS = sa.Table(
    "batch_predictions",
    METADATA,
    sa.Column("dataset", sa.String(40), primary_key=True),
    sa.Column("track_id", sa.Text, primary_key=True),
    sa.Column("model_version", sa.Integer, primary_key=True),
    sa.Column("model_name", sa.Text, nullable=False),
    sa.Column("part", sa.String(8), nullable=False),
    sa.Column("genre", sa.Text, nullable=False),
    sa.Column("predicted_genre", sa.Text, nullable=False),
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("probabilities", sa.JSON, nullable=False),
    sa.Column("is_calibrated", sa.Boolean, nullable=False),
    sa.Column("is_synthetic", sa.Boolean, nullable=False),
    sa.Column("feature_version", sa.String(40), nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("predicted_at", _UTC, nullable=False),
    comment="The champion's prediction for each track of a dataset.",
)

SENT_FILES = sa.Table(
    "sent_files",
    METADATA,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False),
    sa.Column("ctime_ns", sa.BigInteger),
    sa.Column("inode", sa.BigInteger),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("topic_id", sa.String(64)),
    sa.Column("kafka_partition", sa.Integer, nullable=False),
    sa.Column("kafka_offset", sa.BigInteger, nullable=False),
    sa.Column("sent_at", _UTC, nullable=False),
    sa.Index("ix_sent_files_path", "path"),
    sa.Index("ix_sent_files_position", "topic", "topic_id", "kafka_partition", "kafka_offset"),
    comment="The producer's memory: the watched files that the broker has confirmed.",
)

PRODUCERS = sa.Table(
    "producers",
    METADATA,
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("folder", sa.Text, primary_key=True),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", _UTC, nullable=False),
    sa.Column("beat_at", _UTC, nullable=False),
    sa.Column("ended_at", _UTC),
    sa.Column("last_error", sa.Text),
    sa.Column("sent", sa.Integer, nullable=False),
    sa.Column("refused", sa.Integer, nullable=False),
    sa.Column("waiting", sa.Integer, nullable=False),
    comment="The folder producers and their last signs of life.",
)

STREAM_RANGES = sa.Table(
    "stream_ranges",
    METADATA,
    sa.Column("partition_key", sa.Text, primary_key=True),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("topic_id", sa.String(64), nullable=False),
    sa.Column("kafka_partition", sa.Integer, nullable=False),
    sa.Column("start_offset", sa.BigInteger, nullable=False),
    sa.Column("end_offset", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(9), nullable=False),
    sa.Column("parent_key", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("run_id", sa.Text),
    sa.Column("planned_at", _UTC, nullable=False),
    sa.Column("heartbeat_at", _UTC),
    sa.Column("committed_at", _UTC),
    sa.Column("feature_path", sa.Text),
    sa.Column("feature_version", sa.String(40)),
    sa.Column("model_name", sa.Text),
    sa.Column("model_version", sa.Integer),
    sa.Column("clip_count", sa.Integer),
    sa.Column("predicted_count", sa.Integer),
    sa.Column("quarantined_count", sa.Integer),
    sa.Column("duplicate_count", sa.Integer),
    sa.Column("reason", sa.Text),
    sa.Index("ix_stream_ranges_position", "topic", "topic_id", "kafka_partition", "end_offset"),
    sa.Index("ix_stream_ranges_topic_state", "topic", "state"),
    comment="The stream's ledger: which offset ranges are planned, committed, split or lost.",
)

STREAM_LEASES = sa.Table(
    "stream_leases",
    METADATA,
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("expires_at", _UTC, nullable=False),
    comment="Which run drains a topic. The token grows with every new holder and fences the ones before.",
)

STREAM_PREDICTIONS = sa.Table(
    "stream_predictions",
    METADATA,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("model_name", sa.Text, primary_key=True),
    sa.Column("model_version", sa.Integer, primary_key=True),
    sa.Column("dataset", sa.String(40), nullable=False),
    sa.Column("file_name", sa.Text, nullable=False),
    sa.Column("genre", sa.Text),
    sa.Column("predicted_genre", sa.Text, nullable=False),
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("probabilities", sa.JSON, nullable=False),
    sa.Column("is_calibrated", sa.Boolean, nullable=False),
    sa.Column("is_synthetic", sa.Boolean, nullable=False),
    sa.Column("feature_version", sa.String(40), nullable=False),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("kafka_partition", sa.Integer, nullable=False),
    sa.Column("kafka_offset", sa.BigInteger, nullable=False),
    sa.Column("partition_key", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("event_time", _UTC, nullable=False),
    sa.Column("predicted_at", _UTC, nullable=False),
    sa.Column("latency_s", sa.Float, nullable=False),
    sa.Index("ix_stream_predictions_predicted_at", "predicted_at"),
    sa.Index("ix_stream_predictions_topic_predicted_at", "topic", "predicted_at"),
    comment="The champion's prediction for each distinct clip of the stream.",
)

STREAM_QUARANTINE = sa.Table(
    "stream_quarantine",
    METADATA,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("file_name", sa.Text, nullable=False),
    sa.Column("stage", sa.String(40), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("topic", sa.Text),
    sa.Column("kafka_partition", sa.Integer),
    sa.Column("kafka_offset", sa.BigInteger),
    sa.Column("kept_path", sa.Text),
    sa.Column("partition_key", sa.Text),
    sa.Column("run_id", sa.Text),
    sa.Column("quarantined_at", _UTC, nullable=False),
    comment="Clips of the stream that were refused, and why.",
)

STREAM_CHECKS = sa.Table(
    "stream_checks",
    METADATA,
    sa.Column("partition_key", sa.Text, primary_key=True),
    sa.Column("check_name", sa.String(60), primary_key=True),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("expected", sa.Text),
    sa.Column("actual", sa.Text),
    sa.Column("checked_at", _UTC, nullable=False),
    comment="The checks of each committed range, summed up by one check on the asset.",
)
