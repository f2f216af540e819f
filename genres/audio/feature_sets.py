"""Every feature set that the pipeline knows. Another one is a module that defines it and a line here."""

from collections.abc import Sequence

from genres.audio.feature_set import JOINT, AnyFeatureSet, FeatureSet, JoinedFeatureSets
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
    return JOINT.join(feature_set.feature_version for feature_set in FEATURE_SETS.values())


def installed_sets() -> tuple[str, ...]:
    """Return the names of the feature sets that can be computed here."""
    return tuple(name for name, feature_set in FEATURE_SETS.items() if feature_set.is_installed())


def chosen_sets(names: str) -> tuple[str, ...]:
    """Return the names of the feature sets that a setting chooses, which separates them by commas; all if it is empty.

    Raises
    ------
    GenresError
        If there is none of a name, or it is not installed.
    """
    chosen = tuple(dict.fromkeys(names.split(","))) if names else installed_sets()
    feature_sets_named(chosen)
    return chosen


def feature_sets_named(names: Sequence[str]) -> AnyFeatureSet:
    """Return the feature sets that a setting or a dataset names, joined if they are several.

    Raises
    ------
    GenresError
        If there is none of a name, or it is not installed.
    """
    for name in names:
        if name not in installed_sets():
            known = ", ".join(installed_sets())
            raise GenresError(
                f"feature set '{name}' is not installed: install it, or set GENRES_FEATURE_SETS to some of {known}"
                if name in FEATURE_SETS
                else f"there is no feature set '{name}': set GENRES_FEATURE_SETS to some of {known}"
            )
    return _joined([FEATURE_SETS[name] for name in dict.fromkeys(names)])


def feature_set_of(feature_version: str) -> AnyFeatureSet:
    """Return the feature set, or the joined ones, whose present version features or a model are stamped with.

    Raises
    ------
    GenresError
        If this code computes no features of that version.
    """
    computed = {FEATURE_SETS[name].feature_version: FEATURE_SETS[name] for name in installed_sets()}
    versions = feature_version.split(JOINT)
    if computed.keys() >= set(versions):
        return _joined([computed[version] for version in versions])
    raise GenresError(
        f"features {feature_version} are not computed any more (this code computes {', '.join(computed)}): "
        "materialize audio_features, genre_classifiers and champion_model again, or run `genres demo`"
    )


def _joined(sets: Sequence[FeatureSet]) -> AnyFeatureSet:
    return sets[0] if len(sets) == 1 else JoinedFeatureSets(tuple(sets))
