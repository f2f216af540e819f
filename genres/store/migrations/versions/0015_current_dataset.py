"""The current dataset is the one that was loaded or chosen last; until now it could only be loaded."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add ``chosen_at``; of a dataset of before, the time when it was loaded last."""
    with op.batch_alter_table("datasets") as table:
        table.add_column(sa.Column("chosen_at", sa.DateTime(timezone=True)))
    op.execute("UPDATE datasets SET chosen_at = registered_at")
    with op.batch_alter_table("datasets") as table:
        table.alter_column("chosen_at", existing_type=sa.DateTime(timezone=True), nullable=False)
