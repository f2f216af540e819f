"""The champion: better than always answering the same, and better than what there is; a tie changes nothing."""

import pytest

from genre_assets.champion_model import judge


@pytest.mark.parametrize(
    ("f1", "baseline", "present", "wins"),
    [
        (0.8, 0.1, None, True),
        (0.1, 0.1, None, False),
        (0.05, 0.1, None, False),
        (0.8, 0.1, 0.7, True),
        (0.8, 0.1, 0.8, False),
        (0.8, 0.1, 0.9, False),
        (0.1, 0.1, 0.05, False),
        (0.0, 0.0, None, False),
    ],
)
def test_who_becomes_champion(f1: float, baseline: float, present: float | None, wins: bool) -> None:
    verdict = judge(valid_macro_f1=f1, baseline=baseline, present=present)
    assert verdict.is_champion is wins
    assert f"{f1:.3f}" in verdict.why
    assert "\n" not in verdict.why


def test_the_reason_names_what_was_not_beaten() -> None:
    assert "majority baseline's 0.200" in judge(valid_macro_f1=0.1, baseline=0.2, present=0.05).why
    assert "present champion's 0.900" in judge(valid_macro_f1=0.8, baseline=0.2, present=0.9).why
    assert judge(valid_macro_f1=0.8, baseline=0.2, present=0.7).why == (
        "validation macro-F1 0.800 beats the majority baseline's 0.200 and the present champion's 0.700"
    )
