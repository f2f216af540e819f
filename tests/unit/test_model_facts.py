"""Facts of a registered version come back typed; a version that somebody made by hand is one clear error."""

from types import SimpleNamespace

import pytest

from genres.errors import GenresError
from genres.store.model_facts import ModelFacts, RegisteredModel

FACTS = ModelFacts(
    spark_model_path="/genres/mine/models/v3",
    spark_model_digest="abc",
    classifier="RandomForest",
    feature_version="gtzan57-1",
    is_calibrated=True,
    fingerprint="def",
    valid_macro_f1=0.1 + 0.2,
    why="it is better",
)


def version(tags: dict[str, str]) -> SimpleNamespace:
    return SimpleNamespace(name="genres-mine", version="3", run_id="r", tags=tags)


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_facts_come_back_with_their_types(is_calibrated: bool) -> None:
    facts = FACTS.model_copy(update={"is_calibrated": is_calibrated})
    tags = facts.to_tags()
    assert all(isinstance(value, str) for value in tags.values())
    assert tags["is_calibrated"] == str(is_calibrated).lower()
    read = RegisteredModel.of(version({**tags, "mlflow.user": "somebody"}))
    assert (read.name, read.version, read.run_id) == ("genres-mine", 3, "r")
    assert ModelFacts(**{name: getattr(read, name) for name in ModelFacts.model_fields}) == facts


def test_missing_facts_are_named_with_the_version_and_what_to_do() -> None:
    tags = FACTS.to_tags()
    del tags["fingerprint"], tags["classifier"], tags["why"]
    with pytest.raises(GenresError) as said:
        RegisteredModel.of(version(tags))
    told = str(said.value)
    assert told.startswith("genres-mine version 3 lacks the tags classifier, fingerprint: ")
    assert "materialize champion_model" in told and "\n" not in told


def test_facts_that_make_no_sense_are_named_with_their_values() -> None:
    tags = {**FACTS.to_tags(), "valid_macro_f1": "high", "is_calibrated": "perhaps"}
    with pytest.raises(GenresError, match=r"cannot be read: is_calibrated='perhaps', valid_macro_f1='high'"):
        RegisteredModel.of(version(tags))
