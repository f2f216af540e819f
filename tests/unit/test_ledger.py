"""The ledger: what was published is what readers get, newest last, one dataset apart from the other."""

from pathlib import Path

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


def test_a_dataset_may_move_to_another_folder(database: Database) -> None:
    for folder in ("/first", "/second"):
        ledger.register_dataset(database, Dataset("mine", Path(folder), is_synthetic=False, feature_set="gtzan57"))
    ledger.register_dataset(database, Dataset("synthetic", Path("/made"), is_synthetic=True, feature_set="gtzan57"))
    assert ledger.registered_dataset(database, "mine") == Dataset(
        "mine", Path("/second"), is_synthetic=False, feature_set="gtzan57"
    )
    assert ledger.registered_dataset(database, "synthetic").is_synthetic is True
    ledger.register_dataset(database, Dataset("mine", Path("/second"), is_synthetic=False, feature_set="other"))
    assert ledger.registered_dataset(database, "mine").feature_set == "other"


def test_an_unknown_dataset_is_named_with_those_that_there_are(database: Database) -> None:
    with pytest.raises(GenresError, match=r"no dataset 'jaz' \(known: none\): load a folder"):
        ledger.registered_dataset(database, "jaz")
    ledger.register_dataset(database, Dataset("jazz", Path("/jazz"), is_synthetic=False, feature_set="gtzan57"))
    with pytest.raises(GenresError, match=r"no dataset 'jaz' \(known: jazz\)"):
        ledger.registered_dataset(database, "jaz")


def test_fingerprints_know_content_not_order() -> None:
    assert ledger.fingerprint(["a", "b"]) == ledger.fingerprint(iter(["b", "a"]))
    assert len({ledger.fingerprint(lines) for lines in ([], ["a"], ["a", "a"], ["a", "b"])}) == 4
