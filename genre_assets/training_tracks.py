"""Which tracks a model was trained on, kept beside it, so that a later comparison leaves them out."""

from typing import TYPE_CHECKING, NamedTuple

from genres.datasets.split import fingerprint as split_fingerprint
from genres.errors import GenresError
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.model_facts import ModelFacts

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run


def dataset_fingerprint(split: "pd.DataFrame", feature_version: str) -> str:
    """Digest what a model is trained and judged on: the tracks, their genres and parts, and the feature version."""
    return ledger.fingerprint([split_fingerprint(split), feature_version])


class PublishedSplit(NamedTuple):
    """A split, and where it lies in the lake."""

    path: str
    table: "pd.DataFrame"


def split_of_training(parent: "Run", tables: BatchTables) -> PublishedSplit:
    """Return the split that a training's candidates were trained on, which may not be the newest one any more.

    Raises
    ------
    GenresError
        If it is gone.
    """
    tags = parent.data.tags
    split = find_split(tables, fingerprint=tags["dataset_fingerprint"], feature_version=tags["feature_version"])
    if split is None:
        raise GenresError(
            f"the split that the newest candidates of dataset '{tables.dataset}' were trained on is no longer in the "
            "lake: materialize genre_classifiers again"
        )
    return split


def find_split(tables: BatchTables, *, fingerprint: str, feature_version: str) -> PublishedSplit | None:
    """Find the split that a `dataset_fingerprint` is of among all that were ever published; None if it is gone."""
    for commit in reversed(ledger.published(tables.database, tables.dataset, "track_split")):
        try:
            split = tables.lake.read_table([commit.path]).to_pandas()
        except FileNotFoundError:
            continue
        if dataset_fingerprint(split, feature_version) == fingerprint:
            return PublishedSplit(commit.path, split)
    return None


def keep_split(tables: BatchTables, split: "pd.DataFrame", version: int) -> str:
    """Write a version's split beside its directory, where it stays as long as the model does, and return the path."""
    import pyarrow as pa

    folder = tables.lake.path(tables.dataset, "models")
    return tables.lake.write_table(pa.Table.from_pandas(split, preserve_index=False), folder, name=f"v{version}-split")


def training_tracks(model: ModelFacts, tables: BatchTables) -> "pd.DataFrame | None":
    """Return the tracks that a version was trained on.

    Returns
    -------
    DataFrame or None
        ``track_id``, ``genre`` and ``sha256``. A version that has no split beside it, since it is older than that,
        was trained on a split with its fingerprint; None if that is not in the lake any more.
    """
    split: pd.DataFrame | None = None
    if model.split_path and tables.lake.files.exists(model.split_path):
        split = tables.lake.read_table([model.split_path]).to_pandas()
    else:
        found = find_split(tables, fingerprint=model.fingerprint, feature_version=model.feature_version)
        split = None if found is None else found.table
    return None if split is None else split.loc[split["part"] == "train", ["track_id", "genre", "sha256"]]


def unseen(tracks: "pd.DataFrame", trained_on: "pd.DataFrame") -> "pd.DataFrame":
    """Return the tracks of which neither the name nor the audio is among those of a training.

    Parameters
    ----------
    tracks, trained_on
        Columns ``track_id`` and ``sha256``.
    """
    known = tracks["track_id"].isin(trained_on["track_id"]) | tracks["sha256"].isin(trained_on["sha256"])
    return tracks[~known]
