"""Quarantine: what a stage refuses now, and nothing that was fixed since."""

import pytest

from genres.store import quarantine
from genres.store.database import Database
from genres.store.quarantine import RefusedClip

TEXT = RefusedClip("blues.notes", "notes.wav", "a" * 64, "raw_audio", "not a RIFF file")
HUGE = RefusedClip("blues.huge", "huge.wav", "b" * 64, "raw_audio", "700 s, at most 600")
NOISE = RefusedClip("blues.noise", "noise.mp3", "c" * 64, "audio_features", "cannot be decoded")


@pytest.fixture
def database(empty_database: Database) -> Database:
    empty_database.migrate()
    return empty_database


def test_a_mended_clip_leaves_and_the_rest_stays(database: Database) -> None:
    assert quarantine.replace(database, "mine", "raw_audio", [TEXT, HUGE], run_id="1") == 2
    assert quarantine.replace(database, "mine", "audio_features", [NOISE], run_id="1") == 1
    assert quarantine.replace(database, "yours", "raw_audio", [TEXT], run_id="1") == 1
    assert quarantine.refused(database, "mine") == [HUGE, NOISE, TEXT]
    assert quarantine.replace(database, "mine", "raw_audio", [HUGE], run_id="2") == 1
    assert quarantine.refused(database, "mine") == [HUGE, NOISE]
    assert quarantine.refused(database, "yours") == [TEXT]
    assert quarantine.replace(database, "mine", "raw_audio", [], run_id="3") == 0
    assert quarantine.refused(database, "mine") == [NOISE]


def test_files_of_one_name_and_content_in_two_genres_are_two_rows(database: Database) -> None:
    """As empty ones may be that are numbered in each genre."""
    other = TEXT._replace(track_id="jazz.notes")
    assert quarantine.replace(database, "mine", "raw_audio", [other, TEXT], run_id="1") == 2
    assert quarantine.refused(database, "mine") == [TEXT, other]


def test_an_error_leaves_the_old_rows(database: Database) -> None:
    quarantine.replace(database, "mine", "raw_audio", [TEXT], run_id="1")
    broken = HUGE._replace(reason=None)  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"(?i)not.null"):
        quarantine.replace(database, "mine", "raw_audio", [broken], run_id="2")
    assert quarantine.refused(database, "mine") == [TEXT]
