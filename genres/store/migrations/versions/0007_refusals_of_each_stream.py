"""Each stream has its own refusals, and they keep the genre that the folder named."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Put the topic into the key of ``stream_quarantine``; where it was not known it is an empty text."""
    op.execute("UPDATE stream_quarantine SET topic = '' WHERE topic IS NULL")
    with op.batch_alter_table("stream_quarantine") as table:
        table.add_column(sa.Column("genre", sa.Text()))
        table.alter_column("topic", existing_type=sa.Text(), nullable=False)
        table.drop_constraint("pk_stream_quarantine", type_="primary")
        table.create_primary_key("pk_stream_quarantine", ["sha256", "suffix", "judged_by", "topic"])
