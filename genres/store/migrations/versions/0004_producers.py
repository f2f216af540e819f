"""Sent files by host, identity and topic id; the producers' signs of life."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Tell apart files of several hosts, lives of a topic and states of a file; record that producers live."""
    with op.batch_alter_table("sent_files") as table:
        # Of the files that were sent until now nobody knows the host.
        table.add_column(sa.Column("host", sa.Text, nullable=False, server_default=""))
        table.add_column(sa.Column("ctime_ns", sa.BigInteger))
        table.add_column(sa.Column("inode", sa.BigInteger))
        table.add_column(sa.Column("topic_id", sa.String(64)))
    with op.batch_alter_table("sent_files") as table:
        table.alter_column("host", existing_type=sa.Text, existing_nullable=False, server_default=None)
        table.drop_constraint("pk_sent_files", type_="primary")
        table.create_primary_key("pk_sent_files", ["host", "path"])
    op.create_index("ix_sent_files_path", "sent_files", ["path"])
    op.create_index("ix_sent_files_position", "sent_files", ["topic", "topic_id", "kafka_partition", "kafka_offset"])
    op.create_table(
        "producers",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_at", _UTC, nullable=False),
        sa.Column("beat_at", _UTC, nullable=False),
        sa.Column("ended_at", _UTC),
        sa.Column("last_error", sa.Text),
        sa.Column("sent", sa.Integer, nullable=False),
        sa.Column("refused", sa.Integer, nullable=False),
        sa.Column("waiting", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("topic", "host", "folder", name="pk_producers"),
        comment="The folder producers and their last signs of life.",
    )
