"""Who made which version the champion, when and why."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create ``champion_changes``; of the changes until now MLflow keeps no record."""
    op.create_table(
        "champion_changes",
        sa.Column("change_id", sa.Integer, nullable=False),
        sa.Column("dataset", sa.String(40), nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("previous_version", sa.Integer),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("run_id", sa.String(64)),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("change_id", name="pk_champion_changes"),
        comment="Who made which version the champion, when and why.",
    )
    op.create_index("ix_champion_changes_dataset", "champion_changes", ["dataset"])
