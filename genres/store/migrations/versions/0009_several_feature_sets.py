"""A dataset names several feature sets, and a model may read several that are joined, whose versions are longer."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Rename the datasets' column, whose one name is a list of one, and widen the columns of versions."""
    with op.batch_alter_table("datasets") as table:
        table.alter_column(
            "feature_set",
            new_column_name="feature_sets",
            existing_type=sa.String(40),
            type_=sa.Text(),
            existing_nullable=False,
        )
    for name, is_nullable in (("batch_predictions", False), ("stream_predictions", False), ("stream_ranges", True)):
        with op.batch_alter_table(name) as table:
            table.alter_column(
                "feature_version",
                existing_type=sa.String(40),
                type_=sa.String(200),
                existing_nullable=is_nullable,
            )
    with op.batch_alter_table("stream_quarantine") as table:
        table.alter_column("judged_by", existing_type=sa.String(80), type_=sa.String(240), existing_nullable=False)
