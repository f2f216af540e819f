"""``genres datasets``: which one is current, what a stream is scored by, and what goes when one is deleted."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest
import sqlalchemy as sa
from fsspec.implementations.local import LocalFileSystem

from genres.errors import GenresError
from genres.settings import Settings
from genres.store import dataset_deletion, ledger, tables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import Commit, Dataset
from genres.store.model_registry import ModelRegistry
from genres_cli import datasets
from genres_cli.main import main
from genres_cli.report import datasets_lines, holdings_lines
from genres_dagster.partitions import DATASETS

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


class Registry:
    """Stands for MLflow: versions and aliases of each dataset."""

    def __init__(self, champions: dict[str, int]) -> None:
        self.champions = champions
        self.retired: list[str] = []

    def name_for(self, dataset: str) -> str:
        return f"genres-{dataset}"

    def versions(self, dataset: str) -> list[Any]:
        return [SimpleNamespace(version=str(number)) for number in range(self.champions.get(dataset, 0), 0, -1)]

    def aliases(self, dataset: str) -> dict[str, int]:
        return {"champion": self.champions[dataset]} if dataset in self.champions else {}

    def find_champion(self, dataset: str) -> Any:
        number = self.champions.get(dataset)
        return number and SimpleNamespace(name=f"genres-{dataset}", version=number)

    def datasets_with_champion(self) -> list[str]:
        return sorted(self.champions)

    def delete_versions(self, dataset: str) -> None:
        self.champions.pop(dataset, None)

    def retire_experiment(self, dataset: str) -> None:
        self.retired.append(dataset)


class World:
    """Two datasets, jazz and rock, of which rock was loaded last; jazz has a champion, rows and files."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(state_dir=folder / "state", port_base=64_000)
        self.database = Database(self.settings.database)
        self.database.migrate()
        self.registry = Registry({"jazz": 2})
        self.lake = Lake(cast("Any", LocalFileSystem()), hdfs="hdfs://nn", root=str(folder / "lake"))
        self.instance = dg.DagsterInstance.ephemeral()
        for name in ("jazz", "rock"):
            ledger.register_dataset(self.database, Dataset(name, Path(f"/{name}"), False, ("gtzan57",)))
            (folder / "lake" / name / "raw_audio").mkdir(parents=True)
            (folder / "lake" / name / "raw_audio" / "a.wav").write_bytes(bytes(2**20))
            ledger.publish(self.database, name, "raw_audio", Commit(f"/lake/{name}/1", 3, "f", "r"))
        self.instance.add_dynamic_partitions(str(DATASETS.name), ["jazz", "rock"])
        change = {
            **{"dataset": "jazz", "model_name": "genres-jazz", "model_version": 2, "previous_version": 1},
            **{"action": "training", "changed_by": "champion_model", "why": "", "changed_at": NOW},
        }
        with self.database.writing() as connection:
            connection.execute(sa.insert(tables.CHAMPION_CHANGES).values(change))
        monkeypatch.setattr(datasets, "ModelRegistry", lambda _: self.registry)
        monkeypatch.setattr(datasets.Lake, "of", lambda _: self.lake)
        monkeypatch.setattr(datasets, "open_instance", lambda _: nullcontext(self.instance))

    def delete(self, name: str, /, *, confirmed: bool = True, **settings: Any) -> Any:
        made = self.settings.model_copy(update=settings)
        return datasets.delete(made, name, confirmed=lambda _: confirmed)

    def left(self, dataset: str) -> dict[str, int]:
        entry = Dataset(dataset, Path("/"), False, ())
        found = dataset_deletion.holdings(entry, self.database, self.lake, cast("ModelRegistry", self.registry))
        return {**found.rows, "bytes": found.folder_bytes, "versions": len(found.versions)}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, monkeypatch)
    yield made
    made.database.engine.dispose()


def test_what_goes_with_a_dataset_and_what_stays(world: World) -> None:
    of_rock = world.left("rock")
    found = world.delete("jazz")
    assert found.rows == {"batch_predictions": 0, "quarantine": 0, "champion_changes": 1, "lake_commits": 1}
    assert (found.versions, found.folder_bytes, found.model_name) == ([1, 2], 2**20, "genres-jazz")
    assert [entry.dataset for entry in ledger.registered_datasets(world.database)] == ["rock"]
    assert set(world.left("jazz").values()) == {0}
    assert world.registry.retired == ["jazz"]
    assert world.instance.get_dynamic_partitions(str(DATASETS.name)) == ["rock"]
    assert world.left("rock") == of_rock
    lines = holdings_lines(found)
    assert "rows      batch_predictions 0, quarantine 0, champion_changes 1, lake_commits 1" in lines
    assert "models    genres-jazz: v1, v2" in lines
    assert any(str(found.folder) in line and "1 MiB" in line for line in lines)


def test_nothing_goes_unless_it_is_confirmed(world: World) -> None:
    before = world.left("jazz")
    assert world.delete("jazz", confirmed=False) is None
    assert world.left("jazz") == before
    with pytest.raises(GenresError, match="no dataset 'ska'"):
        world.delete("ska")


def test_a_deletion_that_was_interrupted_is_done_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(world.lake.files, "rm", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.delete("jazz")
    assert "jazz" in [entry.dataset for entry in ledger.registered_datasets(world.database)]
    world.registry.champions["jazz"] = 2
    world.delete("jazz")
    assert set(world.left("jazz").values()) == {0}


@pytest.mark.parametrize("settings", [{"stream_dataset": "jazz"}, {"dataset": "jazz"}, {"audio": Path("/jazz")}])
def test_what_a_stream_uses_stays(world: World, settings: dict[str, Any]) -> None:
    with pytest.raises(GenresError, match="champion of dataset 'jazz' scores stream audio_clips: let another"):
        world.delete("jazz", **settings)
    assert world.left("jazz")["versions"] == 2


def test_what_an_open_dagster_uses_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "scored_by", lambda _: {"dataset": "jazz", "folder": ""})
    with pytest.raises(GenresError, match="scores stream audio_clips of the open Dagster"):
        world.delete("jazz")


def test_the_current_one_goes_only_if_no_champion_of_it_is_there(world: World) -> None:
    ledger.use_dataset(world.database, "jazz")
    with pytest.raises(GenresError, match="`genres datasets use <id>` makes it the current one"):
        world.delete("jazz")
    ledger.use_dataset(world.database, "rock")
    world.delete("rock")  # it scores the stream, but with nothing
    assert [entry.dataset for entry in ledger.registered_datasets(world.database)] == ["jazz"]


@pytest.mark.parametrize(
    ("job", "tags"),
    [("batch_pipeline", {"dagster/partition": "jazz"}), ("stream_batch_job", {})],
    ids=["its", "stream"],
)
def test_what_a_run_works_on_stays(world: World, job: str, tags: dict[str, str]) -> None:
    run = world.instance.add_run(
        dg.DagsterRun(job_name=job, run_id="r1", status=dg.DagsterRunStatus.STARTED, tags=tags)
    )
    with pytest.raises(GenresError, match=rf"run {run.run_id} \({job}\) may use dataset 'jazz'"):
        world.delete("jazz")
    assert world.left("jazz")["versions"] == 2


def test_a_stream_says_which_champion_scores_it(world: World) -> None:
    (stream,) = world.settings.streams
    registry = cast("ModelRegistry", world.registry)

    def line(**changed: Any) -> str:
        return datasets.scoring_line(stream, world.settings.model_copy(update=changed), world.database, registry)

    assert line(dataset="jazz") == "stream audio_clips scored by genres-jazz v2"
    assert line() == (
        "stream audio_clips: dataset 'rock' has no champion yet, clips wait until there is one; there is one of jazz: "
        "`genres datasets use jazz`, or name it in GENRES_STREAM_DATASET"
    )
    world.registry.champions.clear()
    assert line().endswith("clips wait until there is one")


def test_the_list_marks_the_current_one(world: World) -> None:
    rows = datasets.described(world.settings, world.database)
    assert [(row["dataset"], row["is_current"], row["clips"]) for row in rows] == [
        ("rock", True, 3),
        ("jazz", False, 3),
    ]
    assert [(row["champion_version"], row["scores_topics"]) for row in rows] == [(None, ["audio_clips"]), (2, [])]
    lines = datasets_lines(rows, world.settings)
    assert lines[0].split() == ["*", "rock", "3", "clips,", "no", "champion", "yet"]
    assert lines[2].split() == ["jazz", "3", "clips,", "champion", "v2"]
    named = world.settings.model_copy(update={"dataset": "jazz"})
    rows = datasets.described(named, world.database)
    assert [row["dataset"] for row in rows if row["is_current"]] == ["jazz"]
    assert datasets_lines(rows, named)[-1].startswith("* is the current one by GENRES_DATASET=jazz: ")
    assert datasets_lines([], named) == [
        "no dataset is loaded yet: `genres load <folder>` loads one, `genres demo` a synthetic one"
    ]


@pytest.fixture
def genres(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    def run(*arguments: str, answer: str = "", **variables: str) -> tuple[str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(f"{answer}\n"))
            for name, value in {"GENRES_STATE_DIR": str(world.settings.state_dir), **variables}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["genres", *arguments])
            with pytest.raises(SystemExit):
                main()
        return capsys.readouterr()

    return run


def test_use_says_what_it_means(genres: Callable[..., tuple[str, str]]) -> None:
    assert genres("datasets", "use", "jazz")[0].startswith(
        "'jazz' is the current dataset now; a stream that names none"
    )
    assert json.loads(genres("datasets", "show", "--json")[0])["dataset"] == "jazz"
    assert "scores       the stream of audio_clips" in genres("datasets", "show")[0]
    assert (
        "but here GENRES_DATASET or GENRES_AUDIO is set and names 'jazz'"
        in genres("datasets", "use", "rock", GENRES_DATASET="jazz")[0]
    )
    assert [row["dataset"] for row in json.loads(genres("datasets", "list", "--json")[0])] == ["rock", "jazz"]
    assert "no dataset 'ska'" in genres("datasets", "use", "ska")[1]


def test_delete_asks_first(genres: Callable[..., tuple[str, str]], world: World) -> None:
    shown, _ = genres("datasets", "delete", "jazz", answer="n")
    assert "deleting dataset 'jazz' takes" in shown and "models    genres-jazz: v1, v2" in shown
    assert world.left("jazz")["versions"] == 2
    assert "dataset 'jazz' is deleted" in genres("datasets", "delete", "jazz", "--yes")[0]
    assert world.left("jazz")["versions"] == 0
