"""Datasets, lake commits, quarantine and batch predictions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables of the batch half."""
    op.create_table(
        "datasets",
        sa.Column("dataset", sa.String(40), nullable=False),
        sa.Column("source_folder", sa.Text, nullable=False),
        sa.Column("is_synthetic", sa.Boolean, nullable=False),
        sa.Column("registered_at", _UTC, nullable=False),
        sa.PrimaryKeyConstraint("dataset", name="pk_datasets"),
        comment="The labelled datasets; one partition of the batch assets each.",
    )
    op.create_table(
        "lake_commits",
        sa.Column("commit_id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("dataset", sa.String(40), nullable=False),
        sa.Column("table_name", sa.String(40), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("row_count", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("committed_at", _UTC, nullable=False),
        sa.PrimaryKeyConstraint("commit_id", name="pk_lake_commits"),
        sa.UniqueConstraint("path", name="uq_lake_commits_path"),
        comment="The ledger: which Parquet on HDFS is published.",
    )
    op.create_index("ix_lake_commits_dataset_table_name", "lake_commits", ["dataset", "table_name"])
    op.create_table(
        "quarantine",
        sa.Column("dataset", sa.String(40), nullable=False),
        sa.Column("file_name", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("stage", sa.String(40), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("quarantined_at", _UTC, nullable=False),
        sa.PrimaryKeyConstraint("dataset", "file_name", "sha256", "stage", name="pk_quarantine"),
        comment="Clips that were refused, and why.",
    )
    op.create_table(
        "batch_predictions",
        sa.Column("dataset", sa.String(40), nullable=False),
        sa.Column("track_id", sa.Text, nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("part", sa.String(8), nullable=False),
        sa.Column("genre", sa.Text, nullable=False),
        sa.Column("predicted_genre", sa.Text, nullable=False),
        sa.Column("probability", sa.Float, nullable=False),
        sa.Column("probabilities", sa.JSON, nullable=False),
        sa.Column("is_calibrated", sa.Boolean, nullable=False),
        sa.Column("is_synthetic", sa.Boolean, nullable=False),
        sa.Column("feature_version", sa.String(40), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("predicted_at", _UTC, nullable=False),
        sa.PrimaryKeyConstraint("dataset", "track_id", "model_version", name="pk_batch_predictions"),
        comment="The champion's prediction for each track of a dataset.",
    )
