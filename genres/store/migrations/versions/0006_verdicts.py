"""A refusal is about bytes under a suffix, judged by a version; a later verdict closes it and leaves it readable."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Put suffix and version into the key of ``stream_quarantine``; older rows have empty texts there."""
    with op.batch_alter_table("stream_quarantine") as table:
        table.add_column(sa.Column("suffix", sa.String(16), nullable=False, server_default=""))
        table.add_column(sa.Column("judged_by", sa.String(80), nullable=False, server_default=""))
        table.add_column(sa.Column("closed_at", sa.DateTime(timezone=True)))
    with op.batch_alter_table("stream_quarantine") as table:
        for name, length in (("suffix", 16), ("judged_by", 80)):
            table.alter_column(name, existing_type=sa.String(length), existing_nullable=False, server_default=None)
        table.drop_constraint("pk_stream_quarantine", type_="primary")
        table.create_primary_key("pk_stream_quarantine", ["sha256", "suffix", "judged_by"])
