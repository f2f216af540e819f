"""Which clip a lost offset held, and which losses a person has acknowledged."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Create ``confirmed_messages``; of the files that were sent again until now nobody knows the earlier offsets."""
    op.create_table(
        "confirmed_messages",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("topic_id", sa.String(64), nullable=False),
        sa.Column("kafka_partition", sa.Integer, nullable=False),
        sa.Column("kafka_offset", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("topic", "topic_id", "kafka_partition", "kafka_offset", name="pk_confirmed_messages"),
        comment="Messages that the broker confirmed and that no row of sent_files stands for: of a file that was sent "
        "again, or changed, since, and of clips sent again from the quarantine. They say which clip a lost offset "
        "held.",
    )
    with op.batch_alter_table("stream_ranges") as table:
        table.add_column(sa.Column("acknowledged_at", sa.DateTime(timezone=True)))
