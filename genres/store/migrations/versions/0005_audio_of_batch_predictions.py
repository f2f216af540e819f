"""Which audio a batch prediction is for: a replaced file gets a row of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Put the audio's sha256 into the key; of the rows that are there nobody knows it, which is an empty text."""
    with op.batch_alter_table("batch_predictions") as table:
        table.add_column(sa.Column("sha256", sa.String(64), nullable=False, server_default=""))
    with op.batch_alter_table("batch_predictions") as table:
        table.alter_column("sha256", existing_type=sa.String(64), existing_nullable=False, server_default=None)
        table.drop_constraint("pk_batch_predictions", type_="primary")
        table.create_primary_key("pk_batch_predictions", ["dataset", "track_id", "sha256", "model_version"])
