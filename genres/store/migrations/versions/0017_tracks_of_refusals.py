"""Files of one name and content in two genres are refused as two tracks."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Put the track into the key; of the rows that are there nobody knows it, which is an empty text."""
    with op.batch_alter_table("quarantine") as table:
        table.add_column(sa.Column("track_id", sa.Text(), nullable=False, server_default=""))
    with op.batch_alter_table("quarantine") as table:
        table.alter_column("track_id", existing_type=sa.Text(), existing_nullable=False, server_default=None)
        table.drop_constraint("pk_quarantine", type_="primary")
        table.create_primary_key("pk_quarantine", ["dataset", "track_id", "file_name", "sha256", "stage"])
