"""Predictions of audio that was replaced or taken out are marked; those of before are by the dataset's next load.

A resident process may hold a lease too: the table says so.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add ``stale_since``, and say who drains."""
    with op.batch_alter_table("batch_predictions") as table:
        table.add_column(sa.Column("stale_since", sa.DateTime(timezone=True)))
    if op.get_bind().dialect.supports_comments:
        op.create_table_comment(
            "stream_leases", "Who drains a topic. The token grows with every new holder and fences the ones before."
        )
