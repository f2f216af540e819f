"""What is known of a registered model version: typed facts, kept as the version's tags in MLflow."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from genres.errors import GenresError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


class ModelFacts(BaseModel):
    """The facts of a version: what it takes to use it, and where it comes from."""

    model_config = ConfigDict(frozen=True)

    spark_model_path: str
    """Native Spark directory on HDFS, a path in the lake."""
    spark_model_digest: str
    """From `directory_digest`, of that directory."""
    classifier: str
    """Name of the candidate."""
    feature_version: str
    """Of the features that it reads."""
    is_calibrated: bool
    """Whether its probabilities are calibrated or at least the classifier's own, not the softmax of raw scores."""
    calibration: str = ""
    """How its probabilities were calibrated, for people; empty for versions of before that."""
    certain_from: float | None = None
    """The probability from which an answer is certain; infinite if none is, None for versions of before that."""
    fingerprint: str
    """Fingerprint of the features and the split that it was trained and judged on."""
    valid_macro_f1: float
    valid_tracks: int | None = None
    """How many validation tracks the figure is of. This and the figures below lack in versions of before them."""
    valid_ece: float | None = None
    """Expected calibration error on the validation tracks."""
    test_macro_f1: float | None = None
    test_accuracy: float | None = None
    test_tracks: int | None = None
    """How many test tracks the two figures are of."""
    split_path: str = ""
    """The split whose training part it was trained on, a Parquet file in the lake; empty if nobody knows it."""
    spark_model_uri: str = ""
    """The directory's full address, for people."""
    data: str = ""
    """Which data it was trained on, for people."""
    why: str = ""
    """Why it became champion or challenger, for people."""
    dagster_run_id: str = ""

    def to_tags(self) -> dict[str, str]:
        """Return the facts as MLflow's tags; what is not known has none."""
        values = {name: getattr(self, name) for name in ModelFacts.model_fields if getattr(self, name) is not None}
        return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}


class RegisteredModel(ModelFacts):
    """A registered version of a dataset's genre model, with its facts."""

    name: str
    version: int
    run_id: str

    @classmethod
    def of(cls, version: "ModelVersion") -> Self:
        """Read a version as MLflow's client returns it.

        Raises
        ------
        GenresError
            If facts are missing or make no sense: somebody registered the version by hand.
        """
        tags: Mapping[str, str] = version.tags
        facts = {name: tags[name] for name in ModelFacts.model_fields if name in tags}
        try:
            return cls.model_validate(
                {**facts, "name": version.name, "version": int(version.version), "run_id": version.run_id or ""}
            )
        except ValidationError as error:
            lacking = [str(found["loc"][0]) for found in error.errors() if found["type"] == "missing"]
            wrong = [f"{found['loc'][0]}={found['input']!r}" for found in error.errors() if found["type"] != "missing"]
            told = [f"lacks the tags {', '.join(lacking)}"] if lacking else []
            told += [f"has tags that cannot be read: {', '.join(wrong)}"] if wrong else []
            raise GenresError(
                f"{version.name} version {version.version} {' and '.join(told)}: it was not registered by "
                "champion_model; set the tags, or materialize champion_model, or point the alias at another version"
            ) from error
