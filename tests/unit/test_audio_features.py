"""What ``audio_features`` computes: only the sets that a clip lacks."""

from types import SimpleNamespace
from typing import Any

import pandas as pd

from genre_assets.audio_features import _missing
from genres.audio.feature_sets import feature_sets_named
from genres.audio.gtzan57 import GTZAN57
from genres.audio.librosa96 import LIBROSA96

ACCEPTED = pd.DataFrame({"track_id": list("abcd")})


def found(gtzan57: str, librosa96: str) -> list[tuple[str, str]]:
    """Sets and clips that are computed where the named clips have rows already."""
    present = {GTZAN57.feature_version: list(gtzan57), LIBROSA96.feature_version: list(librosa96)}

    def features(version: str, columns: Any) -> pd.DataFrame:
        return pd.DataFrame({"track_id": present[version]}, dtype=str)

    both = feature_sets_named(["gtzan57", "librosa96"])
    groups = _missing(ACCEPTED, both, SimpleNamespace(features=features))  # type: ignore[arg-type]
    return [(sets.name, "".join(clips["track_id"])) for sets, clips in groups]


def test_only_what_is_lacking_is_computed() -> None:
    assert found("", "") == [("gtzan57+librosa96", "abcd")]
    assert found("abcd", "abcd") == []
    # A lake of before, which has one set; one where a run was killed between two tables; and one that grew since.
    assert found("abcd", "") == [("librosa96", "abcd")]
    assert found("abcd", "ab") == [("librosa96", "cd")]
    assert sorted(found("abc", "ab")) == [("gtzan57+librosa96", "d"), ("librosa96", "c")]
