"""Every feature set that the pipeline knows. Another one is a module that defines it and a line here."""

from collections.abc import Iterable, Sequence

from genres.audio.feature_set import JOINT, AnyFeatureSet, FeatureSet, JoinedFeatureSets
from genres.audio.gtzan57 import GTZAN57
from genres.audio.librosa96 import LIBROSA96
from genres.audio.musicnn import MUSICNN
from genres.errors import GenresError

_KNOWN = (GTZAN57, LIBROSA96, MUSICNN)
FEATURE_SETS: dict[str, FeatureSet] = {
    feature_set.name: feature_set for feature_set in _KNOWN if feature_set.missing() is None
}
"""Every feature set that can be computed on this machine, by its name."""

JOINED_SETS = (("librosa96", "musicnn"),)
"""Sets that models are also trained on together: features made by hand beside what a network hears."""


def every_column() -> tuple[str, ...]:
    """Return the columns of all feature sets: what a table may have whose dataset is not known yet."""
    return tuple(dict.fromkeys(column for feature_set in FEATURE_SETS.values() for column in feature_set.columns))


def every_version() -> str:
    """Return the versions of all feature sets in one word, for Dagster to compare."""
    return JOINT.join(feature_set.feature_version for feature_set in FEATURE_SETS.values())


def chosen_sets(names: str) -> tuple[str, ...]:
    """Return the names of the feature sets that a setting chooses, which separates them by commas.

    If it is empty, all are that there are, but for those that another one contains: models would be trained on their
    columns twice.

    Raises
    ------
    GenresError
        If there is none of a name.
    """
    contained = {inner.name for feature_set in FEATURE_SETS.values() for inner in feature_set.contains}
    chosen = names.split(",") if names else [name for name in FEATURE_SETS if name not in contained]
    return tuple(part.name for part in feature_sets_named(chosen).parts)


def feature_sets_named(names: Sequence[str]) -> AnyFeatureSet:
    """Return the feature sets that a setting or a dataset names, joined if they are several.

    Raises
    ------
    GenresError
        If there is none of a name.
    """
    for name in names:
        if name not in FEATURE_SETS:
            _refuse_if_missing(feature_set for feature_set in _KNOWN if feature_set.name == name)
            known = ", ".join(FEATURE_SETS)
            raise GenresError(f"there is no feature set '{name}': set GENRES_FEATURE_SETS to some of {known}")
    return _joined([FEATURE_SETS[name] for name in dict.fromkeys(names)])


def training_sets(names: Sequence[str]) -> tuple[AnyFeatureSet, ...]:
    """Return what models are trained on where clips have the named sets: each of them, and those of `JOINED_SETS`."""
    joined = [together for together in JOINED_SETS if set(together) <= set(names)]
    return tuple(feature_sets_named(sets) for sets in (*([name] for name in names), *joined))


def feature_set_of(feature_version: str) -> AnyFeatureSet:
    """Return the feature set, or the joined ones, whose present version features or a model are stamped with.

    Raises
    ------
    GenresError
        If this code computes no features of that version.
    """
    computed = {feature_set.feature_version: feature_set for feature_set in FEATURE_SETS.values()}
    versions = feature_version.split(JOINT)
    if computed.keys() >= set(versions):
        return _joined([computed[version] for version in versions])
    _refuse_if_missing(
        feature_set for feature_set in _KNOWN if feature_set.feature_version in set(versions) - {*computed}
    )
    raise GenresError(
        f"features {feature_version} are not computed any more (this code computes {', '.join(computed)}): "
        "materialize audio_features, genre_classifiers and champion_model again, or run `genres demo`"
    )


def _joined(sets: Sequence[FeatureSet]) -> AnyFeatureSet:
    return sets[0] if len(sets) == 1 else JoinedFeatureSets(tuple(sets))


def _refuse_if_missing(feature_sets: Iterable[FeatureSet]) -> None:
    """Refuse those that were not there when this module was loaded."""
    for feature_set in feature_sets:
        missing = feature_set.missing() or "it was installed a moment ago: start this again"
        raise GenresError(f"the feature set {feature_set.name} is not installed here: {missing}")
