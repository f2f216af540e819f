"""The batch code location as a whole: it loads lightly, and every asset says what it is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import sqlalchemy as sa
from fsspec.implementations.local import LocalFileSystem

from genre_assets.definitions import build_defs
from genre_assets.raw_audio import upload_clips
from genres.datasets.folder import scan
from genres.datasets.split import split_tracks
from genres.settings import Settings
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres_dagster.partitions import DATASETS

UPSTREAM = {
    "raw_audio": set(),
    "audio_features": {"raw_audio"},
    "feature_figures": {"audio_features"},
    "track_split": {"audio_features"},
    "hyperparameter_search": {"audio_features", "track_split"},
    "genre_classifiers": {"audio_features", "track_split", "hyperparameter_search"},
    "calibrated_classifier": {"genre_classifiers"},
    "champion_model": {"calibrated_classifier"},
    "batch_predictions": {"audio_features", "track_split", "champion_model"},
    "evaluation_figures": {"genre_classifiers"},
    "dataset_report": {"batch_predictions", "evaluation_figures"},
}
CHECKS = {
    ("raw_audio", "gtzan_checksums", False),
    ("raw_audio", "class_balance", False),
    ("raw_audio", "exact_duplicates", False),
    ("raw_audio", "quarantined", False),
    ("audio_features", "schema", True),
    ("audio_features", "finite", True),
    ("audio_features", "complete", True),
    ("track_split", "no_leak", True),
    ("champion_model", "promotion", True),
    ("batch_predictions", "complete", False),
    ("batch_predictions", "label_set", False),
    ("batch_predictions", "stale", False),
}
TABLES = ("raw_audio", "audio_features", "track_split", "batch_predictions")
HEAVY = (
    *("pyspark.ml", "pyspark.sql.connect", "librosa", "mlflow", "sklearn", "matplotlib", "scipy", "numba", "kafka"),
    *("numpy", "pandas", "pyarrow", "sqlalchemy", "requests", "fsspec"),
)


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_defs(settings=Settings(state_dir=tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_the_graph_is_the_one_that_we_know(specs: dict[str, dg.AssetSpec]) -> None:
    assert {key: {dep.asset_key.to_user_string() for dep in spec.deps} for key, spec in specs.items()} == UPSTREAM


def test_the_checks_are_the_ones_that_we_know(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found = {(key.asset_key.to_user_string(), key.name, graph.get(key).blocking) for key in graph.asset_check_keys}
    assert found == CHECKS


@pytest.mark.parametrize("asset", UPSTREAM)
def test_every_asset_says_what_it_is(specs: dict[str, dg.AssetSpec], asset: str) -> None:
    spec = specs[asset]
    assert spec.group_name in {"audio", "features", "models", "predictions"}
    assert spec.owners == ["team:genres"]
    assert spec.kinds
    assert spec.description and len(spec.description) > 20
    assert spec.partitions_def == DATASETS


@pytest.mark.parametrize("asset", TABLES)
def test_every_table_describes_its_columns(specs: dict[str, dg.AssetSpec], asset: str) -> None:
    schema = specs[asset].metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    assert all(column.description and column.type for column in schema.columns)
    lineage = specs[asset].metadata.get("dagster/column_lineage")
    if lineage is not None:
        assert set(lineage.deps_by_column) <= {column.name for column in schema.columns}
        for sources in lineage.deps_by_column.values():
            for source in sources:
                upstream = specs[source.asset_key.to_user_string()].metadata["dagster/column_schema"]
                assert source.column_name in {column.name for column in upstream.columns}
    else:
        assert asset == "raw_audio", "only the first table comes from outside"


def described(specs: dict[str, dg.AssetSpec], asset: str) -> dict[str, dg.TableColumn]:
    return {column.name: column for column in specs[asset].metadata["dagster/column_schema"].columns}


def test_described_columns_are_those_of_the_migrated_table(
    specs: dict[str, dg.AssetSpec], empty_database: Database
) -> None:
    empty_database.migrate()
    table = sa.Table("batch_predictions", sa.MetaData(), autoload_with=empty_database.engine)
    columns = described(specs, "batch_predictions")
    assert columns.keys() == {column.name for column in table.columns}
    assert {name for name, column in columns.items() if column.constraints.nullable} == {
        column.name for column in table.columns if column.nullable
    }
    assert {name for name, column in columns.items() if "primary key" in column.constraints.other} == {
        column.name for column in table.primary_key
    }


class Folder(LocalFileSystem):
    """A local folder that stands for HDFS."""

    def rename(self, path: str, to: str) -> None:
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        Path(path).rename(to)


def test_described_columns_are_those_of_the_written_parquet(
    specs: dict[str, dg.AssetSpec], tmp_path: Path, write_clips: Callable[..., None]
) -> None:
    write_clips(tmp_path / "music", ("blues", "metal"), 4)
    (tmp_path / "music" / "blues" / "notes.wav").write_text("not audio")
    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    database.migrate()
    tables = BatchTables(Lake(Folder(auto_mkdir=True), hdfs="", root=str(tmp_path / "lake")), database, "music")
    rows = [row for row, _ in upload_clips(scan(tmp_path / "music").files, tables, None, Settings())]
    manifest = tables.lake.read_table([tables.publish_manifest(pd.DataFrame(rows), run_id="tests").path])
    split = split_tracks(tables.accepted()[["track_id", "genre", "sha256"]]).table
    parts = tables.lake.read_table([tables.publish_split(split, run_id="tests").path])
    kinds = {"int64": "bigint", "int32": "int", "int16": "smallint"}
    for asset, table in (("raw_audio", manifest), ("track_split", parts)):
        columns = described(specs, asset)
        stored = {field.name: kinds.get(str(field.type), str(field.type)) for field in table.schema}
        assert {name: column.type for name, column in columns.items()} == stored
        # One clip was refused: every column that may be empty is.
        may_be_empty = {name for name, column in columns.items() if column.constraints.nullable}
        assert may_be_empty == {name for name in table.schema.names if table[name].null_count}


def test_jobs_are_partitioned_by_dataset(definitions: dg.Definitions) -> None:
    whole, load = (definitions.resolve_job_def(name) for name in ("batch_pipeline", "load_dataset"))
    assert whole.partitions_def == load.partitions_def == DATASETS
    assert {key.to_user_string() for key in whole.asset_layer.executable_asset_keys} == (
        set(UPSTREAM) - {"hyperparameter_search"}
    )
    assert {key.to_user_string() for key in load.asset_layer.executable_asset_keys} == {"raw_audio"}


def test_each_call_builds_fresh_definitions(definitions: dg.Definitions, tmp_path: Path) -> None:
    other = build_defs(settings=Settings(state_dir=tmp_path, mlflow_tracking_uri="http://elsewhere:5000"))
    assert other.resources["mlflow"].tracking_uri == "http://elsewhere:5000"  # type: ignore[index]
    assert definitions.resources["mlflow"].tracking_uri != "http://elsewhere:5000"  # type: ignore[index]


def test_loading_the_location_is_light(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENRES_STATE_DIR", str(tmp_path))
    program = (
        "import sys, genre_assets.definitions\n"
        "genre_assets.definitions.defs()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = done.stderr.strip().splitlines()[-1]
    assert heavy == "[]"


def test_figures_follow_what_they_show(definitions: dg.Definitions, specs: dict[str, dg.AssetSpec]) -> None:
    eager = dg.AutomationCondition.eager()
    follow = {name for name, spec in specs.items() if spec.automation_condition == eager}
    assert follow == {"feature_figures", "evaluation_figures", "dataset_report"}
    assert definitions.resolve_sensor_def("figures_follow").default_status == dg.DefaultSensorStatus.RUNNING


def test_only_steps_that_compute_what_is_missing_are_tried_again(definitions: dg.Definitions) -> None:
    tried_again = {name for name in UPSTREAM if definitions.resolve_assets_def(name).op.retry_policy}
    assert tried_again == {"audio_features", "batch_predictions"}
