"""The ledger: what was published is what readers get, newest last, one dataset apart from the other."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from genres.errors import GenresError
from genres.store import ledger
from genres.store.database import Database
from genres.store.ledger import Commit, Dataset


@pytest.fixture
def database(empty_database: Database) -> Database:
    empty_database.migrate()
    return empty_database


def test_parts_come_back_in_the_order_of_publishing(database: Database) -> None:
    commits = [Commit(f"/lake/{name}", 3, "f" * 64, "run") for name in "zab"]
    for commit in commits:
        ledger.publish(database, "mine", "audio_features", commit)
    ledger.publish(database, "mine", "raw_audio", Commit("/lake/other table", 1, "f" * 64, "run"))
    ledger.publish(database, "yours", "audio_features", Commit("/lake/other dataset", 1, "f" * 64, "run"))
    assert ledger.published(database, "mine", "audio_features") == commits
    assert ledger.latest(database, "mine", "audio_features") == commits[-1]


def test_a_path_is_published_once(database: Database) -> None:
    commit = Commit("/lake/a", 3, "f" * 64, "run")
    ledger.publish(database, "mine", "audio_features", commit)
    with pytest.raises(sa.exc.IntegrityError):
        ledger.publish(database, "mine", "audio_features", commit)
    assert ledger.published(database, "mine", "audio_features") == [commit]


def test_what_was_not_made_yet_is_named(database: Database) -> None:
    assert ledger.published(database, "mine", "track_split") == []
    with pytest.raises(GenresError, match="'mine' has no track_split yet: materialize track_split first"):
        ledger.latest(database, "mine", "track_split")


def entry(dataset: str, folder: str, **changed: Any) -> Dataset:
    return Dataset(dataset, Path(folder), is_synthetic=False, feature_sets=("gtzan57",))._replace(**changed)


def test_an_id_belongs_to_one_folder_until_it_is_replaced(database: Database) -> None:
    ledger.register_dataset(database, entry("mine", "/first"))
    ledger.require_source(database, entry("mine", "/first"))
    for refuse in (ledger.require_source, ledger.register_dataset):
        with pytest.raises(GenresError, match=r"'mine' was loaded from /first: .*--dataset mine --replace") as caught:
            refuse(database, entry("mine", "/the second"))
        assert "genres load '/the second'" in str(caught.value)
    assert ledger.registered_dataset(database, "mine") == entry("mine", "/first")
    ledger.register_dataset(database, entry("mine", "/second"), replaces=True)
    with pytest.raises(GenresError, match="'mine' was loaded from /second"):
        ledger.register_dataset(database, entry("mine", "/first"))


def test_synthetic_clips_may_lie_anywhere(database: Database) -> None:
    for folder in ("/here", "/there"):
        ledger.register_dataset(database, entry("synthetic", folder, is_synthetic=True))
    assert ledger.registered_dataset(database, "synthetic").source_folder == Path("/there")


def test_which_dataset_settings_mean(database: Database) -> None:
    def meant(dataset: str = "", folder: str | None = None) -> str:
        return ledger.dataset_meant(database, dataset=dataset, folder=folder and Path(folder))

    assert (meant(), meant(folder="/jazz"), meant("any")) == ("synthetic", "synthetic", "any")
    for name in ("jazz", "rock"):
        ledger.register_dataset(database, entry(name, f"/{name}"))
    assert meant() == "rock", "the one that was loaded last"
    assert meant(folder="/jazz") == "jazz", "the one of the folder"
    assert meant(folder="/never loaded") == "rock"
    assert meant("ska", folder="/jazz") == "ska", "the one that is named"
    ledger.register_dataset(database, entry("jazz_again", "/jazz"))
    assert (meant(folder="/jazz"), ledger.dataset_of_folder(database, Path("/jazz"))) == ("jazz_again", "jazz_again")
    ledger.register_dataset(database, entry("rock", "/rock"))
    assert meant() == "rock"
    assert [found.dataset for found in ledger.registered_datasets(database)] == ["rock", "jazz_again", "jazz"]
    ledger.use_dataset(database, "jazz")
    assert meant() == "jazz", "the one that was chosen last"
    assert (meant(folder="/jazz"), meant(folder="/rock"), meant("ska")) == ("jazz", "rock", "ska")
    with pytest.raises(GenresError, match=r"no dataset 'ska' \(known: "):
        ledger.use_dataset(database, "ska")
    assert meant() == "jazz"
    ledger.register_dataset(database, entry("rock", "/rock"))
    assert meant() == "rock", "what is loaded is the current one again"


def test_a_registered_dataset_is_read_back(database: Database) -> None:
    for folder in ("/first", "/second"):
        ledger.register_dataset(database, entry("mine", folder), replaces=True)
    ledger.register_dataset(database, Dataset("synthetic", Path("/made"), is_synthetic=True, feature_sets=("gtzan57",)))
    assert ledger.registered_dataset(database, "mine") == Dataset(
        "mine", Path("/second"), is_synthetic=False, feature_sets=("gtzan57",)
    )
    assert ledger.registered_dataset(database, "synthetic").is_synthetic is True
    ledger.register_dataset(database, Dataset("mine", Path("/second"), is_synthetic=False, feature_sets=("other",)))
    assert ledger.registered_dataset(database, "mine").feature_sets == ("other",)


def test_an_unknown_dataset_is_named_with_those_that_there_are(database: Database) -> None:
    with pytest.raises(GenresError, match=r"no dataset 'jaz' \(known: none\): load a folder"):
        ledger.registered_dataset(database, "jaz")
    ledger.register_dataset(database, Dataset("jazz", Path("/jazz"), is_synthetic=False, feature_sets=("gtzan57",)))
    with pytest.raises(GenresError, match=r"no dataset 'jaz' \(known: jazz\)"):
        ledger.registered_dataset(database, "jaz")


def test_fingerprints_know_content_not_order() -> None:
    assert ledger.fingerprint(["a", "b"]) == ledger.fingerprint(iter(["b", "a"]))
    assert len({ledger.fingerprint(lines) for lines in ([], ["a"], ["a", "a"], ["a", "b"])}) == 4
