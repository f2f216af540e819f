"""The champion by hand: who, when and why is recorded, a rollback leads back, and what cannot be used is refused."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa
from fsspec.implementations.local import LocalFileSystem

from genres.audio.gtzan57 import GTZAN57
from genres.errors import GenresError
from genres.store import champions
from genres.store.champions import ChampionChange, Champions, version_before
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_directory import UnusableModelError, directory_digest, require_intact
from genres.store.model_facts import ModelFacts, RegisteredModel
from genres.store.model_registry import ModelRegistry
from genres.store.tables import CHAMPION_CHANGES
from genres_cli.report import models_lines

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Registry:
    """What MLflow keeps of three versions; the second one's features are not computed any more."""

    def __init__(self, lake: Path) -> None:
        self._aliases: dict[str, int] = {}
        self.calls: list[str] = []
        self._versions = {}
        for number in (1, 2, 3):
            folder = lake / "models" / f"v{number}"
            (folder / "stages" / "0_x").mkdir(parents=True)
            (folder / "metadata").write_text(f"version {number}")
            (folder / "stages" / "0_x" / "part-0").write_bytes(bytes(range(number)))
            facts = ModelFacts(
                spark_model_path=str(folder),
                spark_model_digest=directory_digest(folder),
                classifier="LogisticRegression",
                feature_version=GTZAN57.feature_version if number != 2 else "gtzan57-v0-librosa0",
                is_calibrated=True,
                fingerprint="f",
                valid_macro_f1=number / 10,
                valid_tracks=40 if number > 1 else None,
                why="it is better",
            )
            tags = facts.to_tags()
            self._versions[number] = SimpleNamespace(
                name="genres-own", version=str(number), run_id="r", tags=tags, creation_timestamp=NOW.timestamp() * 1000
            )

    def name_for(self, dataset: str) -> str:
        return f"genres-{dataset}"

    def aliases(self, dataset: str) -> dict[str, int]:
        return dict(self._aliases)

    def set_alias(self, dataset: str, alias: str, version: int) -> None:
        self._aliases[alias] = version

    def drop_alias(self, dataset: str, alias: str) -> None:
        del self._aliases[alias]

    def version(self, dataset: str, version: int) -> RegisteredModel:
        return RegisteredModel.of(cast("Any", self._versions[version]))

    def versions(self, dataset: str) -> list[Any]:
        return [self._versions[number] for number in sorted(self._versions, reverse=True)]


class Opened:
    def __init__(self, tmp_path: Path) -> None:
        self.lake = Lake(cast("Any", LocalFileSystem()), hdfs="hdfs://nn", root=str(tmp_path))
        self.database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
        self.database.migrate()
        self.registry = Registry(tmp_path)
        registry = cast("ModelRegistry", self.registry)
        self.champions = Champions(registry, self.lake, self.database, "own")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    yield made
    made.database.engine.dispose()


def change(version: int, *, previous: int | None = None, action: str = "training") -> ChampionChange:
    return ChampionChange("own", "genres-own", version, previous, action, "somebody", "", None, NOW)


@pytest.mark.parametrize(
    ("moves", "present", "before"),
    [
        ([], 4, None),
        ([change(1)], 1, None),
        ([change(2, previous=1)], 2, 1),
        ([change(1), change(2), change(5)], 5, 2),
        # A second rollback goes a step further back, not to where the first one came from.
        ([change(1), change(2), change(5), change(2, action="rollback")], 2, 1),
        ([change(1), change(2), change(5), change(1, action="rollback"), change(6)], 6, 1),
        # An older version that somebody promotes is a step forward.
        ([change(1), change(2), change(1, action="promote")], 1, 2),
        # The alias was set in MLflow itself.
        ([change(1), change(2)], 7, 2),
    ],
)
def test_the_version_before(moves: list[ChampionChange], present: int, before: int | None) -> None:
    assert version_before(moves, present) == before


def test_a_change_by_hand_is_recorded_with_who_when_and_why(opened: Opened) -> None:
    opened.registry.set_alias("own", "challenger", 3)
    opened.champions.set_by_training(1, why="the first one", run_id="run 1")
    began = datetime.now(UTC)
    made = opened.champions.promote(3, why="it hears jazz better")
    first, second = champions.changes(opened.database, "own")
    assert second == made
    assert (first.action, first.previous_version, first.run_id) == ("training", None, "run 1")
    assert (made.action, made.model_version, made.previous_version) == ("promote", 3, 1)
    assert (made.why, made.run_id) == ("it hears jazz better", None)
    assert "@" in made.changed_by
    assert began <= made.changed_at <= datetime.now(UTC)
    assert opened.registry.aliases("own") == {"champion": 3}, "a challenger that won is one no more"


def test_a_rollback_leads_to_the_version_before_and_says_so(opened: Opened) -> None:
    opened.champions.set_by_training(1, why="", run_id="r")
    opened.champions.promote(3, why="")
    made = opened.champions.rollback(why="it was worse on the radio")
    assert (made.model_version, made.previous_version, made.action) == (1, 3, "rollback")
    assert opened.registry.aliases("own")["champion"] == 1
    assert opened.champions.rollback(3, why="").model_version == 3


def test_what_cannot_be_done_says_what_to_do(opened: Opened) -> None:
    opened.registry.set_alias("own", "champion", 1)
    with pytest.raises(GenresError, match="no champion of genres-own before the present one is recorded"):
        opened.champions.rollback(why="")
    with pytest.raises(GenresError, match=r"version 3 of genres-own is not recorded .* `genres models promote 3`"):
        opened.champions.rollback(3, why="")
    with pytest.raises(GenresError, match="version 1 of genres-own is the champion already"):
        opened.champions.promote(1, why="")
    with pytest.raises(GenresError, match="gtzan57-v0-librosa0 are not computed any more"):
        opened.champions.promote(2, why="")
    assert opened.registry.aliases("own") == {"champion": 1}
    assert champions.changes(opened.database, "own") == []


@pytest.mark.parametrize("harm", ["changed", "renamed", "added", "cut", "gone"])
def test_a_directory_that_is_not_what_was_registered_is_refused(opened: Opened, harm: str, tmp_path: Path) -> None:
    model = opened.registry.version("own", 3)
    require_intact(model, opened.lake)
    folder = Path(model.spark_model_path)
    part = folder / "stages" / "0_x" / "part-0"
    if harm == "changed":
        part.write_bytes(b"\0\1\3")
    elif harm == "renamed":
        part.rename(part.with_name("part-1"))
    elif harm == "added":
        part.with_name("part-1").write_bytes(b"")
    elif harm == "cut":
        part.unlink()
    else:
        folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UnusableModelError) as said:
        require_intact(model, opened.lake)
    told = str(said.value)
    assert told.startswith(f"the directory of genres-own version 3, hdfs://nn{folder}, ")
    assert ("is gone" in told) is (harm == "gone")
    assert "genres models rollback" in told and "\n" not in told
    with pytest.raises(UnusableModelError):
        opened.champions.promote(3, why="")
    assert "champion" not in opened.registry.aliases("own")


def test_versions_are_listed_with_figures_alias_and_when(opened: Opened) -> None:
    opened.champions.promote(3, why="by ear")
    del opened.registry._versions[2].tags["fingerprint"]
    newest, by_hand, oldest = opened.champions.rows()
    assert (newest["version"], newest["alias"], newest["why"]) == (3, "champion", "by ear")
    assert (newest["valid_macro_f1"], newest["valid_tracks"]) == (0.3, 40)
    assert newest["champion_since"] is not None and newest["registered_at"] == NOW
    assert by_hand["classifier"] is None and "lacks the tags fingerprint" in by_hand["why"]
    assert (oldest["alias"], oldest["champion_since"], oldest["valid_tracks"]) == ("", None, None)
    _, *listed = "\n".join(models_lines([newest, by_hand, oldest], 80)).split("\n\n")
    assert [re.findall(r"valid  macro-F1 ([^,\n]*)", lines) for lines in listed] == [
        ["0.300 (n=40)"],
        [],
        ["0.100 (n=?)"],
    ]


def test_each_change_is_seen_by_who_asks_whether_there_was_one(opened: Opened) -> None:
    assert champions.newest_change(opened.database, "own") == 0
    opened.champions.promote(1, why="")
    seen = champions.newest_change(opened.database, "own")
    opened.champions.promote(3, why="")
    assert champions.newest_change(opened.database, "own") > seen > 0
    assert champions.newest_change(opened.database, "other") == 0


def test_changes_survive_on_either_database(empty_database: Database) -> None:
    empty_database.migrate()
    with empty_database.writing() as connection:
        connection.execute(sa.insert(CHAMPION_CHANGES), [change(1)._asdict(), change(2, previous=1)._asdict()])
    assert champions.changes(empty_database, "own") == [change(1), change(2, previous=1)]
    assert champions.newest_change(empty_database, "own") == 2
