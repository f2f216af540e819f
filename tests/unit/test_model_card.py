"""A model card says how many tracks its figures are of, names the worst mistakes, and fits where it is shown."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genre_assets.model_card import cut, model_card
from genre_assets.promotion import judge
from genres.audio.gtzan57 import GTZAN57
from genres.store.ledger import Dataset
from genres.store.model_facts import ModelFacts

GENRES = ["jazz", "metal", "rock"]
FACTS = ModelFacts(
    spark_model_path="/genres/own/models/v3",
    spark_model_digest="abc",
    classifier="RandomForest",
    feature_version=GTZAN57.feature_version,
    is_calibrated=True,
    fingerprint="def",
    valid_macro_f1=0.75,
)


def rows(part: str, mistakes: Mapping[tuple[str, str], int], right: int) -> list[dict[str, object]]:
    """Make a part's tracks: so many of each genre that are right, and mistakes by true and predicted genre."""
    answers = {**{(genre, genre): right for genre in GENRES}, **mistakes}
    return [
        {
            "track_id": f"{genre}.{part}{number:03}-{answer}",
            "genre": genre,
            "part": part,
            "probabilities": [0.8 if name == answer else 0.1 for name in GENRES],
        }
        for (genre, answer), count in answers.items()
        for number in range(count)
    ]


MISTAKES = {("jazz", "rock"): 6, ("rock", "metal"): 2, ("metal", "jazz"): 1}


METRICS = {
    **{"calibration_rows": 120.0, "calibration_ece": 0.031, "calibration_ece_before": 0.094, "temperature": 1.31},
    **{"certain_share": 0.4, "certain_accuracy": 0.8125, "valid_rows": 15.0, "valid_unlike_share": 0.02},
    "distance_threshold": 12.5,
}
CALIBRATED = FACTS.model_copy(
    update={"calibration": "temperature 1.31 from 120 out-of-fold answers", "certain_from": 0.62}
)


def card(
    *,
    is_synthetic: bool = False,
    facts: ModelFacts = FACTS,
    right: int = 20,
    mistakes: Mapping[tuple[str, str], int] = MISTAKES,
    metrics: Mapping[str, float] = METRICS,
) -> str:
    judged = pd.DataFrame([*rows("valid", {}, 5), *rows("test", mistakes, right)])
    split = pd.concat([judged, judged.assign(part="train"), judged.assign(part="train")])
    return model_card(
        title="genres-own version 3",
        facts=facts,
        dataset=Dataset("own", Path("own"), is_synthetic=is_synthetic, feature_sets=("gtzan57",)),
        feature_set=GTZAN57,
        split=split,
        judged=judged,
        genres=GENRES,
        verdict=judge(valid_macro_f1=0.75, baseline=0.1, comparison=None, tracks=15, no_rival="the first one"),
        metrics=metrics,
    )


def test_figures_stand_with_their_number_of_tracks_and_intervals() -> None:
    lines = card().splitlines()
    (test,) = (line for line in lines if line.startswith("| test |"))
    cells = [cell.strip() for cell in test.strip("|").split("|")]
    assert cells[1] == "69"
    accuracy, low, high = (
        float(number) for number in cells[2].replace("(", "").replace(")", "").replace("to", "").split()
    )
    assert accuracy == pytest.approx(60 / 69, abs=1e-3)
    spread = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 69)  # of a binomial: what the resamples come near
    assert (accuracy - low, high - accuracy) == pytest.approx((spread, spread), abs=0.03)
    assert float(cells[4]) == pytest.approx(abs(0.8 - 60 / 69), abs=1e-3)
    (valid,) = (line for line in lines if line.startswith("| valid |"))
    assert "15, little" in valid and "little" not in test


def test_the_interval_of_f1_holds_where_a_genre_has_one_track() -> None:
    # A resample in which a genre is not drawn says nothing about how well it is found.
    lines = card(right=1, mistakes={}).splitlines()
    (test,) = (line for line in lines if line.startswith("| test |"))
    assert "| 1.000 (1.00 to 1.00) | 1.000 (1.00 to 1.00) |" in test


def test_the_worst_confusions_come_first_with_their_tracks() -> None:
    found = [line for line in card().splitlines() if "taken for" in line]
    assert found[0].startswith("- jazz taken for rock: 6 of 26 (`jazz.test000-rock`, ")
    assert found[0].endswith(" and 2 more)")
    assert found[1] == "- rock taken for metal: 2 of 22 (`rock.test000-metal`, `rock.test001-metal`)"
    assert len(found) == 3


def test_data_and_verdict_are_said() -> None:
    text = card()
    assert "| jazz | 62 | 5 | 26 |" in text
    assert f"{GTZAN57.feature_version}, 57 columns" in text
    assert "On 15 validation tracks (fewer than 30: this says little): validation macro-F1 0.750 beats" in text
    assert "the first one." in text


def test_what_it_must_not_be_used_for_depends_on_what_it_is() -> None:
    assert "synthetic" not in card() and "calibrated to nothing" not in card()
    assert "On music: it was trained on synthetic sound" in card(is_synthetic=True)
    assert "calibrated to nothing" in card(facts=FACTS.model_copy(update={"is_calibrated": False}))
    assert "tested on 12 tracks" in card(right=1) and "it was tested on" not in card()
    assert "not one of jazz, metal, rock" in card()


def test_the_calibration_stands_with_its_answers_and_what_is_left_out() -> None:
    text = card(facts=CALIBRATED)
    assert "temperature 1.31 from 120 out-of-fold answers" in text
    assert "error is 0.031; without, it would be 0.094" in text
    assert "from a probability of 0.62 on: 40% of the 120 answers" in text and "0.812 are right" in text
    assert "2.0% of the 15 valid tracks" in text
    none = card(facts=CALIBRATED.model_copy(update={"certain_from": math.inf}), metrics={**METRICS, "certain_share": 0})
    assert "Every answer is marked as uncertain" in none
    assert "too few training tracks" in card(metrics={})


def test_what_it_says_of_noise_depends_on_whether_it_can_tell() -> None:
    deaf = {name: value for name, value in METRICS.items() if name != "distance_threshold"}
    for metrics, told in ((METRICS, "is marked by `is_unlike`"), (deaf, "speech, noise and silence too")):
        text = card(facts=CALIBRATED, metrics=metrics)
        assert [phrase in text for phrase in ("is marked by `is_unlike`", "speech, noise and silence too")] == [
            phrase == told for phrase in ("is marked by `is_unlike`", "speech, noise and silence too")
        ]
    assert "cannot tell what is unlike" in card(facts=CALIBRATED, metrics=deaf)


def test_a_long_card_is_cut_at_a_line_and_says_where_the_rest_is() -> None:
    text = card()
    assert cut(text, len(text)) == text
    short = cut(text, 500)
    assert len(short) <= 500 and short.endswith("the run's artifact model_card.md")
    assert text.startswith(short.rsplit("\n\n", 1)[0] + "\n")
