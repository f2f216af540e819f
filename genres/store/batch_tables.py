"""The batch half's tables in the lake: manifest, features and split, how each is published and read back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from genres.audio.feature_set import JOINT
from genres.store import ledger, schemas
from genres.store.database import Database
from genres.store.lake import Lake

if TYPE_CHECKING:
    import pandas as pd

_CANDIDATES = "candidates"


class ManifestChanges(NamedTuple):
    """What became of a dataset's clips between two manifests: their track ids."""

    added: list[str]
    changed: list[str]
    """Other audio, or now accepted or refused, under the same id."""
    removed: list[str]
    kept: int
    """How many are as before."""


def manifest_changes(before: "pd.DataFrame", now: "pd.DataFrame") -> ManifestChanges:
    """Compare two manifests of a dataset."""
    was, is_now = (
        dict(zip(manifest["track_id"], zip(manifest["sha256"], manifest["status"], strict=True), strict=True))
        for manifest in (before, now)
    )
    both = was.keys() & is_now.keys()
    changed = sorted(track for track in both if was[track] != is_now[track])
    return ManifestChanges(
        sorted(is_now.keys() - was.keys()), changed, sorted(was.keys() - is_now.keys()), len(both) - len(changed)
    )


class BatchTables:
    """One dataset's tables.

    Parameters
    ----------
    lake, database
        Where the tables lie and where they are published.
    dataset
        The dataset's id.
    """

    def __init__(self, lake: Lake, database: Database, dataset: str) -> None:
        self.lake = lake
        self.database = database
        self.dataset = dataset

    def publish_manifest(self, rows: "pd.DataFrame", *, run_id: str) -> ledger.Commit:
        """Publish the manifest, unless the published one says the same."""
        return self._publish_whole(schemas.RAW_AUDIO, rows, run_id=run_id)

    def manifest(self) -> "pd.DataFrame":
        """Read the current manifest: every clip of the dataset, accepted and quarantined."""
        return self._read_latest("raw_audio")

    def has_manifest(self) -> bool:
        """Return whether a manifest was ever published."""
        return bool(ledger.published(self.database, self.dataset, "raw_audio"))

    def accepted(self) -> "pd.DataFrame":
        """Read the manifest's accepted clips."""
        manifest = self.manifest()
        return manifest[manifest["status"] == "accepted"].reset_index(drop=True)

    def publish_split(self, rows: "pd.DataFrame", *, run_id: str) -> ledger.Commit:
        """Publish the split, unless the published one says the same."""
        return self._publish_whole(schemas.TRACK_SPLIT, rows, run_id=run_id)

    def split(self) -> "pd.DataFrame":
        """Read the current split."""
        return self._read_latest("track_split")

    def split_path(self) -> str:
        """Path of the current split on HDFS."""
        return ledger.latest(self.database, self.dataset, "track_split").path

    def feature_folder(self, feature_version: str) -> str:
        """Folder of all parts of a feature version."""
        return self.lake.path(self.dataset, "audio_features", feature_version)

    def feature_paths(self, feature_version: str) -> list[str]:
        """Paths of the published parts of a feature version; empty if there are none yet.

        Of joined sets, the parts of each; empty if one of them has none yet.
        """
        commits = ledger.published(self.database, self.dataset, "audio_features")
        of_sets = [
            [commit.path for commit in commits if commit.path.startswith(f"{self.feature_folder(version)}/")]
            for version in feature_version.split(JOINT)
        ]
        return [path for paths in of_sets for path in paths] if all(of_sets) else []

    def features(self, feature_version: str, *, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        """Read the features of the clips that the manifest accepts now; of joined sets, those that have all of them.

        Parameters
        ----------
        columns
            Columns wanted of each set besides ``track_id``, ``genre`` and ``sha256``; None for all but the windows.

        Raises
        ------
        GenresError
            If there is no manifest yet.
        """
        key = ["track_id", "genre", "sha256"]
        accepted = self.accepted()[key]
        wanted = None if columns is None else [*key, *columns]
        joined = accepted
        for version in feature_version.split(JOINT):
            paths = self.feature_paths(version)
            if not paths:
                return accepted.iloc[:0]
            stored = self.lake.read_table(paths, columns=wanted, lists=False).to_pandas().drop_duplicates(key)
            # What two sets share has the same values in both, or is about the one that stands first.
            there = joined.columns.difference(key)
            joined = stored.drop(columns=there, errors="ignore").merge(joined, on=key)
        if "feature_version" in joined:
            joined["feature_version"] = feature_version
        return joined.sort_values("track_id", ignore_index=True)

    def candidate_path(self, training: str, run: str) -> str:
        """Path of a candidate's native Spark directory: ``<dataset>/candidates/<training>/<run>``.

        It is there from the candidate's training on, so that champion_model need not fetch the best one from MLflow.
        It goes some time after a later training of the dataset is complete (``genres.store.retention``).

        Parameters
        ----------
        training
            MLflow's id of the training's run.
        run
            MLflow's id of the candidate's own run.
        """
        return f"{self.candidates_folder()}/{training}/{run}"

    def candidate_attempt(self) -> str:
        """Return a fresh temporary path to save a candidate at, before it is renamed to its own path."""
        return self.lake.attempt_path(self.candidates_folder())

    def candidates_folder(self) -> str:
        """Folder of all trainings' candidates; each training's are in a folder named like its MLflow run."""
        return self.lake.path(self.dataset, _CANDIDATES)

    def table_folders(self) -> list[str]:
        """Folders in which each entry is a table, or a part of one, that was published or will be."""
        whole = [self._whole_folder(table) for table in (schemas.RAW_AUDIO, schemas.TRACK_SPLIT)]
        versions = self.lake.entries(self.lake.path(self.dataset, "audio_features"))
        return [*whole, *(version.path for version in versions)]

    def _whole_folder(self, table: schemas.Table) -> str:
        return self.lake.path(self.dataset, f"{table.name}_table")

    def _publish_whole(self, table: schemas.Table, rows: "pd.DataFrame", *, run_id: str) -> ledger.Commit:
        import pyarrow as pa

        rows = rows[list(table.names)].sort_values("track_id", ignore_index=True)
        content = ledger.fingerprint(map(repr, rows.itertuples(index=False, name=None)))
        commits = ledger.published(self.database, self.dataset, table.name)
        if commits and commits[-1].fingerprint == content:
            return commits[-1]
        schema = schemas.arrow_schema(table.columns)
        path = self.lake.write_table(
            pa.Table.from_pandas(rows, schema=schema, preserve_index=False), self._whole_folder(table)
        )
        commit = ledger.Commit(path, len(rows), content, run_id)
        ledger.publish(self.database, self.dataset, table.name, commit)
        return commit

    def _read_latest(self, table_name: str) -> "pd.DataFrame":
        path = ledger.latest(self.database, self.dataset, table_name).path
        return self.lake.read_table([path]).to_pandas()
