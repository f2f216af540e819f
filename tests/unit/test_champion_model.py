"""What ``champion_model`` compares on, what counts as a rival, and what its check blocks; without a Spark session."""

from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from genre_assets import champion_model as asset
from genre_assets.champion_model import Judged
from genre_assets.promotion import judge
from genre_assets.run_page import genre_table, headline
from genres.audio.gtzan57 import GTZAN57
from genres.store.model_directory import UnusableModelError
from genres.store.model_facts import RegisteredModel

GENRES = ["jazz", "rock"]
NONE: Any = None


def model(version: int, feature_version: str = GTZAN57.feature_version) -> RegisteredModel:
    return RegisteredModel(
        name="genres-own",
        version=version,
        run_id="r",
        spark_model_path=f"/v{version}",
        spark_model_digest="",
        classifier="",
        feature_version=feature_version,
        is_calibrated=True,
        fingerprint="",
        valid_macro_f1=0,
    )


def judged(right: float, genres: list[str] = GENRES, clips: int = 40) -> Judged:
    """Answers about tracks of both genres in turn, the first ones right and the others not."""
    rows = []
    for number in range(clips):
        genre = GENRES[number % 2]
        answer = genre if number < right * clips else GENRES[1 - number % 2]
        rows.append(
            {
                "track_id": f"{genre}.{number}",
                "sha256": f"{number}",
                "genre": genre,
                "part": "valid" if number % 4 < 3 else "test",
                "probabilities": [0.9 if name == answer else 0.1 / (len(genres) - 1) for name in genres],
            }
        )
    return Judged(genres, pd.DataFrame(rows))


SPLIT = pd.DataFrame(
    {"track_id": ["x", "y", "z"], "sha256": ["x", "y", "z"], "genre": ["jazz", "jazz", "rock"], "part": "train"}
)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[int, pd.DataFrame | None]:
    """Training tracks of each version."""
    tracks: dict[int, pd.DataFrame | None] = {}
    monkeypatch.setattr(asset, "training_tracks", lambda model, tables: tracks[model.version])
    return tracks


def test_both_are_judged_on_the_validation_tracks_that_neither_was_trained_on(
    trained: dict[int, pd.DataFrame | None],
) -> None:
    trained[1] = pd.DataFrame({"track_id": ["jazz.0", "renamed"], "sha256": ["?", "1"]})
    own = SPLIT._append({"track_id": "jazz.2", "sha256": "2", "genre": "jazz", "part": "train"}, ignore_index=True)
    comparison, baseline, lacking = asset._compared(model(2), judged(1), model(1), judged(0.5), own, NONE)
    assert comparison.tracks == 30 - 3
    assert (comparison.macro_f1, lacking) == (1, "")
    assert comparison.champion_macro_f1 < 0.6
    # 18 of the 27 are jazz, which the majority baseline always answers.
    assert baseline == pytest.approx((2 * 18 / (18 + 27) + 0) / 2)


def test_tracks_that_the_champion_has_no_features_of_are_left_out(trained: dict[int, pd.DataFrame | None]) -> None:
    trained[1] = SPLIT
    comparison, _, _ = asset._compared(model(2), judged(1), model(1), judged(1, clips=20), SPLIT, NONE)
    assert comparison.tracks == 15


def test_a_champion_of_which_nobody_knows_the_training_tracks_stays(trained: dict[int, pd.DataFrame | None]) -> None:
    trained[1] = None
    comparison, baseline, lacking = asset._compared(model(2), judged(1), model(1), judged(0), SPLIT, NONE)
    verdict = judge(valid_macro_f1=comparison.macro_f1, baseline=baseline, comparison=comparison, no_rival=lacking)
    assert not verdict.is_champion
    assert "version 1 was registered before training tracks were kept" in verdict.why
    assert "genres models promote" in verdict.why


def test_genres_are_matched_by_name_and_not_by_place(trained: dict[int, pd.DataFrame | None]) -> None:
    trained[1] = SPLIT
    champion = judged(1, ["rock", "ska", "jazz"])
    comparison, _, _ = asset._compared(model(2), judged(1), model(1), champion, SPLIT, NONE)
    assert comparison.champion_macro_f1 == 1
    assert comparison.missing_genres == ("ska",)


def rival(present: RegisteredModel | None, monkeypatch: pytest.MonkeyPatch, *, scored: Any, paths: list[str]) -> Any:
    def score(*given: object) -> Any:
        if isinstance(scored, Exception):
            raise scored
        return scored

    monkeypatch.setattr(asset, "_judged", score)
    tables = cast("Any", SimpleNamespace(feature_paths=lambda version: paths))
    return asset._rival(present, "/split", NONE, tables, cast("Any", SimpleNamespace(spark_session=None)))


def test_who_is_no_rival_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(1)
    assert rival(model(1), monkeypatch, scored=found, paths=["/f"]) == (found, "")
    assert rival(None, monkeypatch, scored=found, paths=["/f"]) == (None, "there is no champion yet to compare with")
    for present, scored, paths, told in (
        (model(1, "gtzan57-v0-librosa0"), found, ["/f"], "are not computed any more"),
        (model(1), found, [], "which the dataset does not have"),
        (model(1), UnusableModelError("its directory is gone"), ["/f"], "its directory is gone"),
    ):
        nobody, why = rival(present, monkeypatch, scored=scored, paths=paths)
        assert nobody is None
        assert why.startswith("the present champion, version 1, is no rival: ") and told in why


def test_an_outage_while_the_champion_is_scored_is_no_walkover(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="engine"):
        rival(model(1), monkeypatch, scored=RuntimeError("the engine is away"), paths=["/f"])


@pytest.mark.parametrize(
    ("f1", "present_serves", "passed", "severity"),
    [
        (0.9, True, True, dg.AssetCheckSeverity.WARN),
        (0.1, True, False, dg.AssetCheckSeverity.WARN),
        (0.1, False, False, dg.AssetCheckSeverity.ERROR),
    ],
)
def test_what_follows_is_blocked_only_if_the_champion_cannot_serve(
    f1: float, present_serves: bool, passed: bool, severity: dg.AssetCheckSeverity
) -> None:
    verdict = judge(valid_macro_f1=f1, baseline=0.2, comparison=None, tracks=40, no_rival="it is no rival")
    result = asset._promotion(verdict, None, dataset="own", present_serves=present_serves)
    assert (result.passed, result.severity) == (passed, severity)
    assert result.description == f"dataset own: {verdict.reason}"
    assert ("| baseline | no |" in result.metadata["conditions"].value) is not passed


def test_a_genres_figures_are_a_row_of_the_table_and_no_metric() -> None:
    table = genre_table({"valid": np.array([[3, 1], [0, 4]]), "test": np.array([[2, 0], [0, 0]])}, ["AC/DC", "rock"])
    rows = pd.DataFrame(table).set_index(["part", "genre"])
    assert len(rows) == 4
    assert rows.loc[("valid", "AC/DC")].to_dict() == {"tracks": 4, "precision": 1, "recall": 0.75, "f1": 6 / 7}
    assert rows.loc[("test", "rock")].to_dict() == {"tracks": 0, "precision": 0, "recall": 0, "f1": 0}
    scores = {
        "valid_macro_f1": 0.5,
        "test_accuracy": 0.4,
        "train_s": 2.0,
        "test_f1_AC:2fDC": 1.0,
        "valid_recall_x": 0.1,
    }
    assert headline(scores) == {"valid_macro_f1": 0.5, "test_accuracy": 0.4, "train_s": 2.0}
