"""Every feature set that the pipeline knows. Another one is a module that defines it and a line here."""

from genres.audio.feature_set import FeatureSet
from genres.audio.gtzan57 import GTZAN57
from genres.audio.librosa96 import LIBROSA96
from genres.errors import GenresError

FEATURE_SETS: dict[str, FeatureSet] = {feature_set.name: feature_set for feature_set in (GTZAN57, LIBROSA96)}
"""Every feature set by its name."""


def every_column() -> tuple[str, ...]:
    """Return the columns of all feature sets: what a table may have whose dataset is not known yet."""
    return tuple(dict.fromkeys(column for feature_set in FEATURE_SETS.values() for column in feature_set.columns))


def every_version() -> str:
    """Return the versions of all feature sets in one word, for Dagster to compare."""
    return "+".join(feature_set.feature_version for feature_set in FEATURE_SETS.values())


def feature_set_named(name: str) -> FeatureSet:
    """Return the feature set that a setting or a dataset names.

    Raises
    ------
    GenresError
        If there is none of this name.
    """
    if name not in FEATURE_SETS:
        known = ", ".join(FEATURE_SETS)
        raise GenresError(f"there is no feature set '{name}': set GENRES_FEATURE_SET to one of {known}")
    return FEATURE_SETS[name]


def feature_set_of(feature_version: str) -> FeatureSet:
    """Return the feature set whose present version features or a model are stamped with.

    Raises
    ------
    GenresError
        If this code computes no features of that version.
    """
    for feature_set in FEATURE_SETS.values():
        if feature_set.feature_version == feature_version:
            return feature_set
    computed = ", ".join(feature_set.feature_version for feature_set in FEATURE_SETS.values())
    raise GenresError(
        f"features {feature_version} are not computed any more (this code computes {computed}): "
        "materialize audio_features, genre_classifiers and champion_model again, or run `genres demo`"
    )
