"""Several feature sets: chosen by name, joined, computed in one decode of a clip, and known again by their versions."""

import io
from dataclasses import replace
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from genres.audio import decode, feature_sets
from genres.audio.clip_features import clip_features, clip_row
from genres.audio.decode import decode_at
from genres.audio.feature_set import JOINT, FeatureSet, JoinedFeatureSets, Measured
from genres.audio.feature_sets import (
    FEATURE_SETS,
    chosen_sets,
    feature_set_of,
    feature_sets_named,
    installed_sets,
    training_sets,
)
from genres.audio.gtzan57 import GTZAN57
from genres.audio.known_good import known_good_wav
from genres.audio.librosa96 import LIBROSA96
from genres.errors import GenresError
from spark.extraction import feature_batches, feature_schema
from spark.isolation import KnownGoodClips
from tests.tiny_features import TINY

MAX = {"file_suffix": ".wav", "max_clip_s": 10.0}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FEATURE_SETS, TINY.name, TINY)


def test_all_are_chosen_that_no_other_one_contains_unless_some_are_named() -> None:
    assert chosen_sets("") == tuple(name for name in installed_sets() if name != "gtzan57")
    assert {"librosa96", "tiny"} <= {*chosen_sets("")}
    assert chosen_sets("tiny,gtzan57,tiny") == ("tiny", "gtzan57")
    with pytest.raises(GenresError, match="no feature set 'huge': set GENRES_FEATURE_SETS to some of gtzan57,"):
        chosen_sets("gtzan57,huge")


def test_joined_sets_are_known_again_by_their_version() -> None:
    joined = feature_sets_named(["librosa96", "tiny"])
    assert joined.name == "librosa96+tiny"
    assert joined.feature_version == "librosa96-v1-librosa0.11+tiny-v3-numpy2"
    assert joined.columns == (*LIBROSA96.columns, *TINY.columns)
    assert feature_set_of(joined.feature_version) == joined
    assert feature_set_of(TINY.feature_version) is TINY
    with pytest.raises(GenresError, match=r"features librosa96-v1-librosa0\.11\+tiny-v2-numpy2 are not computed"):
        feature_set_of("librosa96-v1-librosa0.11+tiny-v2-numpy2")


def test_no_version_reads_like_two() -> None:
    assert not [name for name, found in FEATURE_SETS.items() if JOINT in found.feature_version or "," in name]


def test_sets_share_a_column_only_if_one_contains_the_other() -> None:
    for one, other in combinations(FEATURE_SETS.values(), 2):
        if one not in other.contains and other not in one.contains:
            assert not set(one.columns) & set(other.columns)
    for outer in FEATURE_SETS.values():
        for inner in outer.contains:
            assert set(inner.columns) <= set(outer.columns)
            assert inner.sample_rate == outer.sample_rate


def test_a_clip_is_decoded_once_for_sets_of_two_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    stream = decode._stream
    monkeypatch.setattr(decode, "_stream", lambda file: opened.append(file) or stream(file))
    joined = feature_sets_named(["librosa96", "tiny"])
    found = clip_features(known_good_wav(), feature_set=joined, **MAX)
    assert len(opened) == 1
    alone = [clip_features(known_good_wav(), feature_set=part, **MAX) for part in joined.parts]
    assert found.values == alone[0].values | alone[1].values
    assert found.lengths == {"length": 44_100, "length_44100": 88_200}
    assert (found.length, alone[1].length) == (44_100, 88_200)


@pytest.mark.parametrize("rate", [16_000, 22_050, 48_000])
def test_each_rate_is_what_it_is_alone(rate: int) -> None:
    sound = io.BytesIO()
    soundfile.write(sound, np.random.default_rng(0).uniform(-0.5, 0.5, (rate, 2)), rate, format="WAV")
    together = decode_at(sound.getvalue(), sample_rates=[22_050, 16_000, 44_100])
    for wanted, samples in together.items():
        np.testing.assert_array_equal(samples, decode.decode(sound.getvalue(), sample_rate=wanted))


def test_a_contained_set_is_not_computed_again() -> None:
    def fails(_: np.ndarray) -> Measured:
        raise AssertionError("its columns are there")

    inner = replace(GTZAN57, kernel=fails)
    outer = replace(LIBROSA96, contains=(inner,))
    for parts in ((inner, outer), (outer, inner)):
        found = clip_features(known_good_wav(), feature_set=JoinedFeatureSets(parts), **MAX)
        assert sorted(found.values) == sorted(LIBROSA96.columns)
    alone = clip_features(known_good_wav(), feature_set=GTZAN57, **MAX)
    assert alone.values.items() <= found.values.items()


def test_a_clip_that_one_set_refuses_has_a_reason_and_no_features() -> None:
    picky = replace(TINY, min_samples=40 * TINY.sample_rate)
    clip = next(KnownGoodClips().clips([{}]))
    row = clip_row(clip, feature_set=JoinedFeatureSets((GTZAN57, picky)), max_clip_s=60)
    assert "features need 40.000 s" in row["reason"]
    assert row["reason_code"] == "too_short"
    assert not set(row) & {*GTZAN57.columns, *TINY.columns}


def test_a_clip_at_which_a_kernel_fails_that_computes_others_is_refused() -> None:
    def fails(samples: np.ndarray) -> Measured:
        if len(samples) >= 30 * TINY.sample_rate:
            raise ZeroDivisionError("no frames" * 100)
        return TINY.kernel(samples)

    clip = next(KnownGoodClips().clips([{}]))
    row = clip_row(clip, feature_set=replace(TINY, kernel=fails), max_clip_s=60)
    assert row["reason_code"] == "features_failed"
    assert row["reason"].startswith("computing its features failed: ZeroDivisionError: no frames")
    assert len(row["reason"]) < 600


def test_rows_have_the_columns_of_all_sets() -> None:
    joined = feature_sets_named(["gtzan57", "librosa96", "tiny"])
    rows = pa.RecordBatch.from_pylist([{"track_id": "known good"}])
    (found,) = feature_batches([rows], source=KnownGoodClips(), feature_set=joined, max_clip_s=60)
    assert found.schema == feature_schema(KnownGoodClips(), joined)
    windows = ["windows_gtzan57", "windows_librosa96", "windows_tiny"]
    expected = ["track_id", "length", "length_44100", *joined.columns, *windows, "sha256", "feature_version"]
    expected += ["reason", "reason_code"]
    assert sorted(found.schema.names) == sorted(expected)
    (row,) = found.to_pylist()
    assert row["reason"] is None
    assert row["feature_version"] == joined.feature_version
    assert (row["length"], row["length_44100"]) == (661_500, 1_323_000)


def test_every_set_is_in_the_list_under_its_name() -> None:
    assert all(isinstance(found, FeatureSet) and found.name == name for name, found in FEATURE_SETS.items())
    assert feature_sets.every_version().split(JOINT) == [found.feature_version for found in FEATURE_SETS.values()]


def test_models_are_trained_on_each_set_and_on_those_that_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_sets, "JOINED_SETS", (("librosa96", "tiny"),))
    assert [found.name for found in training_sets(("gtzan57", "librosa96"))] == ["gtzan57", "librosa96"]
    assert [found.name for found in training_sets(("tiny", "librosa96"))] == ["tiny", "librosa96", "librosa96+tiny"]
