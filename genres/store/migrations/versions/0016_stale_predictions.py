"""Predictions of audio that was replaced or taken out are marked; those of before are by the dataset's next load."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add ``stale_since``."""
    with op.batch_alter_table("batch_predictions") as table:
        table.add_column(sa.Column("stale_since", sa.DateTime(timezone=True)))
