"""A lease for each shard of a topic."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Put the shard into the key of ``stream_leases``; a topic's one lease of before is that of its shard 0."""
    with op.batch_alter_table("stream_leases") as table:
        table.add_column(sa.Column("shard", sa.Integer, nullable=False, server_default="0"))
    with op.batch_alter_table("stream_leases") as table:
        table.alter_column("shard", existing_type=sa.Integer, existing_nullable=False, server_default=None)
        table.drop_constraint("pk_stream_leases", type_="primary")
        table.create_primary_key("pk_stream_leases", ["topic", "shard"])
