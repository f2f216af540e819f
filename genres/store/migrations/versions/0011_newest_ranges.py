"""The newest ranges in a state are found without sorting all that there were."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Widen the index by topic and state to the order in which ranges are read."""
    op.drop_index("ix_stream_ranges_topic_state", "stream_ranges")
    op.create_index(
        "ix_stream_ranges_newest",
        "stream_ranges",
        ["topic", "state", "planned_at", "kafka_partition", "start_offset"],
    )
