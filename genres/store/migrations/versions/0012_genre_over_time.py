"""Predictions say what was heard in each window of a clip; rows of before know only the whole clip."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column to both tables of predictions."""
    for name in ("batch_predictions", "stream_predictions"):
        with op.batch_alter_table(name) as table:
            table.add_column(sa.Column("over_time", sa.JSON()))
