"""Every feature set that the pipeline knows. Another one is a module that defines it and a line here."""

from collections.abc import Sequence

from genres.audio.feature_set import JOINT, AnyFeatureSet, FeatureSet, JoinedFeatureSets
from genres.audio.gtzan57 import GTZAN57
from genres.audio.librosa96 import LIBROSA96
from genres.audio.musicnn import MUSICNN
from genres.errors import GenresError

FEATURE_SETS: dict[str, FeatureSet] = {feature_set.name: feature_set for feature_set in (GTZAN57, LIBROSA96, MUSICNN)}
"""Every feature set that the pipeline knows, by its name."""

JOINED_SETS = (("librosa96", "musicnn"),)
"""Sets that models are also trained on together: features made by hand beside what a network hears."""


def installed_sets() -> dict[str, FeatureSet]:
    """Return the feature sets that can be computed on this machine, by their names."""
    return {name: feature_set for name, feature_set in FEATURE_SETS.items() if feature_set.missing() is None}


def every_column() -> tuple[str, ...]:
    """Return the columns of all feature sets: what a table may have whose dataset is not known yet."""
    return tuple(dict.fromkeys(column for feature_set in FEATURE_SETS.values() for column in feature_set.columns))


def every_windows_column() -> tuple[str, ...]:
    """Return the columns of all feature sets' windows."""
    return tuple(feature_set.windows_column for feature_set in FEATURE_SETS.values())


def every_version() -> str:
    """Return the versions of all feature sets in one word, for Dagster to compare."""
    return JOINT.join(feature_set.feature_version for feature_set in FEATURE_SETS.values())


def chosen_sets(names: str) -> tuple[str, ...]:
    """Return the names of the feature sets that a setting chooses, which separates them by commas.

    If it is empty, all are that are installed, but for those that another one contains: models would be trained on
    their columns twice.

    Raises
    ------
    GenresError
        If there is none of a name.
    """
    installed = installed_sets()
    contained = {inner.name for feature_set in installed.values() for inner in feature_set.contains}
    chosen = names.split(",") if names else [name for name in installed if name not in contained]
    return tuple(part.name for part in feature_sets_named(chosen).parts)


def feature_sets_named(names: Sequence[str]) -> AnyFeatureSet:
    """Return the feature sets that a setting or a dataset names, joined if they are several.

    Raises
    ------
    GenresError
        If there is none of a name, or it is not installed.
    """
    for name in names:
        if name not in FEATURE_SETS:
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
        If this code computes no features of that version, or what computes them is not installed.
    """
    computed = {feature_set.feature_version: feature_set for feature_set in FEATURE_SETS.values()}
    versions = feature_version.split(JOINT)
    if computed.keys() >= set(versions):
        return _joined([computed[version] for version in versions])
    raise GenresError(
        f"features {feature_version} are not computed any more (this code computes {', '.join(computed)}): "
        "materialize audio_features, genre_classifiers and champion_model again, or run `genres demo`"
    )


def _joined(sets: Sequence[FeatureSet]) -> AnyFeatureSet:
    for feature_set in sets:
        if missing := feature_set.missing():
            raise GenresError(f"the feature set {feature_set.name} is not installed here: {missing}")
    return sets[0] if len(sets) == 1 else JoinedFeatureSets(tuple(sets))
