"""The SQL tables, as the code of this version knows them. ``store/migrations`` creates and changes them."""

import sqlalchemy as sa

METADATA = sa.MetaData(naming_convention={"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s"})

_UTC = sa.DateTime(timezone=True)

DATASETS = sa.Table(
    "datasets",
    METADATA,
    sa.Column("dataset", sa.String(40), primary_key=True),
    sa.Column("source_folder", sa.Text, nullable=False),
    sa.Column("is_synthetic", sa.Boolean, nullable=False),
    sa.Column("registered_at", _UTC, nullable=False),
    comment="The labelled datasets; one partition of the batch assets each.",
)

LAKE_COMMITS = sa.Table(
    "lake_commits",
    METADATA,
    sa.Column("commit_id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("dataset", sa.String(40), nullable=False),
    sa.Column("table_name", sa.String(40), nullable=False),
    sa.Column("path", sa.Text, nullable=False, unique=True),
    sa.Column("row_count", sa.Integer, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("committed_at", _UTC, nullable=False),
    sa.Index("ix_lake_commits_dataset_table_name", "dataset", "table_name"),
    comment="The ledger: which Parquet on HDFS is published.",
)

QUARANTINE = sa.Table(
    "quarantine",
    METADATA,
    sa.Column("dataset", sa.String(40), primary_key=True),
    sa.Column("file_name", sa.Text, primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("stage", sa.String(40), primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("quarantined_at", _UTC, nullable=False),
    comment="Clips that were refused, and why.",
)

BATCH_PREDICTIONS = sa.Table(
    "batch_predictions",
    METADATA,
    sa.Column("dataset", sa.String(40), primary_key=True),
    sa.Column("track_id", sa.Text, primary_key=True),
    sa.Column("model_version", sa.Integer, primary_key=True),
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
    comment="The champion's prediction for each track of a dataset.",
)
