"""A dataset's feature set; a clip's predictions by several models; predictions read by topic."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Let several models predict a clip of the stream, and datasets say which features their models read."""
    with op.batch_alter_table("stream_predictions") as table:
        table.drop_constraint("pk_stream_predictions", type_="primary")
        table.create_primary_key("pk_stream_predictions", ["sha256", "model_name", "model_version"])
    op.create_index("ix_stream_predictions_topic_predicted_at", "stream_predictions", ["topic", "predicted_at"])
    # Until now there was only one feature set. From now on whoever registers a dataset says which one it is.
    with op.batch_alter_table("datasets") as table:
        table.add_column(sa.Column("feature_set", sa.String(40), nullable=False, server_default="gtzan57"))
    with op.batch_alter_table("datasets") as table:
        table.alter_column("feature_set", existing_type=sa.String(40), existing_nullable=False, server_default=None)
