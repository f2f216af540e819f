"""A refusal has its reason's code beside the text."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add ``reason_code``; of the rows that are there only the text is known, and the code is an empty one."""
    for name in ("quarantine", "stream_quarantine"):
        with op.batch_alter_table(name) as table:
            table.add_column(sa.Column("reason_code", sa.String(40), nullable=False, server_default=""))
        with op.batch_alter_table(name) as table:
            table.alter_column("reason_code", existing_type=sa.String(40), existing_nullable=False, server_default=None)
