"""Every feature set that the pipeline knows. Another one is a module that defines it and a line here."""

from collections.abc import Iterable

from genres.audio.feature_set import FeatureSet
from genres.audio.gtzan57 import GTZAN57
from genres.audio.musicnn import MUSICNN
from genres.errors import GenresError

_KNOWN = (GTZAN57, MUSICNN)
FEATURE_SETS: dict[str, FeatureSet] = {
    feature_set.name: feature_set for feature_set in _KNOWN if feature_set.missing() is None
}
"""Every feature set that can be computed on this machine, by its name."""


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
        _refuse_if_missing(feature_set for feature_set in _KNOWN if feature_set.name == name)
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
    _refuse_if_missing(feature_set for feature_set in _KNOWN if feature_set.feature_version == feature_version)
    computed = ", ".join(feature_set.feature_version for feature_set in FEATURE_SETS.values())
    raise GenresError(
        f"features {feature_version} are not computed any more (this code computes {computed}): "
        "materialize audio_features, genre_classifiers and champion_model again, or run `genres demo`"
    )


def _refuse_if_missing(feature_sets: Iterable[FeatureSet]) -> None:
    """Refuse those that were not there when this module was loaded."""
    for feature_set in feature_sets:
        missing = feature_set.missing() or "it was installed a moment ago: start this again"
        raise GenresError(f"the feature set {feature_set.name} is not installed here: {missing}")
