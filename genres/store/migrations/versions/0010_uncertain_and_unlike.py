"""Predictions say which answers are uncertain and which clips are unlike anything learnt; those of before do not."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the columns, empty in the rows that are there."""
    for name in ("batch_predictions", "stream_predictions"):
        with op.batch_alter_table(name) as table:
            table.add_column(sa.Column("is_uncertain", sa.Boolean, nullable=True))
            table.add_column(sa.Column("distance", sa.Float, nullable=True))
            table.add_column(sa.Column("is_unlike", sa.Boolean, nullable=True))
