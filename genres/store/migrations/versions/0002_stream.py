"""The streaming half: sent files, the ledger of offset ranges, leases, predictions, quarantine, checks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables of the streaming half."""
    op.create_table(
        "sent_files",
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        sa.Column("kafka_offset", sa.BigInteger, nullable=False),
        sa.Column("sent_at", _UTC, nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_sent_files"),
        comment="The producer's memory: the watched files that the broker has confirmed.",
    )
    op.create_table(
        "stream_ranges",
        sa.Column("partition_key", sa.Text, nullable=False),
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
        sa.PrimaryKeyConstraint("partition_key", name="pk_stream_ranges"),
        comment="The stream's ledger: which offset ranges are planned, committed, split or lost.",
    )
    op.create_index(
        "ix_stream_ranges_position", "stream_ranges", ["topic", "topic_id", "kafka_partition", "end_offset"]
    )
    op.create_index("ix_stream_ranges_topic_state", "stream_ranges", ["topic", "state"])
    op.create_table(
        "stream_leases",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("expires_at", _UTC, nullable=False),
        sa.PrimaryKeyConstraint("topic", name="pk_stream_leases"),
        comment="Which run drains a topic. The token grows with every new holder and fences the ones before.",
    )
    op.create_table(
        "stream_predictions",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
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
        sa.PrimaryKeyConstraint("sha256", "model_version", name="pk_stream_predictions"),
        comment="The champion's prediction for each distinct clip of the stream.",
    )
    op.create_index("ix_stream_predictions_predicted_at", "stream_predictions", ["predicted_at"])
    op.create_table(
        "stream_quarantine",
        sa.Column("sha256", sa.String(64), nullable=False),
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
        sa.PrimaryKeyConstraint("sha256", name="pk_stream_quarantine"),
        comment="Clips of the stream that were refused, and why.",
    )
    op.create_table(
        "stream_checks",
        sa.Column("partition_key", sa.Text, nullable=False),
        sa.Column("check_name", sa.String(60), nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("expected", sa.Text),
        sa.Column("actual", sa.Text),
        sa.Column("checked_at", _UTC, nullable=False),
        sa.PrimaryKeyConstraint("partition_key", "check_name", name="pk_stream_checks"),
        comment="The checks of each committed range, summed up by one check on the asset.",
    )
