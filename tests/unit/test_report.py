"""What the command prints: predictions of synthetic sound say so, whatever is shown is shown as text."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from genres.settings import StreamSettings
from genres.store.batch_tables import manifest_changes
from genres.store.stream_ledger.producers import SILENT_S, Producer
from genres_cli.report import (
    PredictionsTable,
    loaded_again_lines,
    over_time_lines,
    producer_lines,
    producer_rows,
    quarantine_lines,
    status_lines,
)
from local_stack.stack import ServiceStatus


def printed(table: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def row(**changed: Any) -> dict[str, Any]:
    return {
        "track_id": "blues.00001",
        "part": "test",
        "genre": "blues",
        "predicted_genre": "metal",
        "probability": 0.75,
        "is_calibrated": True,
        "is_synthetic": False,
        "model_name": "genres-mine",
        "model_version": 3,
        "dataset": "mine",
        **changed,
    }


def test_synthetic_rows_say_so() -> None:
    shown = printed(PredictionsTable([row(is_synthetic=True, dataset="own"), row(track_id="other")], name="track_id"))
    (synthetic,) = [line for line in shown.splitlines() if "blues.00001" in line]
    (real,) = [line for line in shown.splitlines() if "other" in line]
    assert "synthetic" in synthetic and "synthetic" not in real
    assert "mine" in real and "genres-mine v3" in real


def test_raw_scores_say_so() -> None:
    assert "0.750 (uncalibrated)" in printed(PredictionsTable([row(is_calibrated=False)], name="track_id"))
    assert "uncalibrated" not in printed(PredictionsTable([row()], name="track_id"))


def curve(*probabilities: list[float], genres: tuple[str, ...] = ("blues", "metal", "pop")) -> dict[str, Any]:
    about = {"window_s": 2.992, "hop_s": 2.992, "start_s": 0.0, "genres": list(genres)}
    return about | {"probabilities": list(probabilities)}


def test_genre_over_time_is_a_line_of_digits_for_each_genre_that_leads() -> None:
    windows = [[0.95, 0.03, 0.02], [0.62, 0.3, 0.08], [0.2, 0.71, 0.09], [0.0, 1.0, 0.0]]
    assert over_time_lines(row(file_name="mix.mp3", over_time=curve(*windows))) == [
        "mix.mp3: probability in tenths, 3 s a digit",
        "  blues            962",
        "  metal             379",
        "                   0:00 0:11",
    ]


def test_ten_minutes_fit_in_eighty_columns() -> None:
    windows = [[0.9, 0.05, 0.05]] * 100 + [[0.1, 0.2, 0.7]] * 100
    first, *lines, axis = over_time_lines(row(file_name="mix.mp3", over_time=curve(*windows)))
    assert first == "mix.mp3: probability in tenths, 12 s a digit"
    assert lines == [f"  blues            {'9' * 25}{'1' * 25}", f"  pop              {' ' * 25}{'7' * 25}"]
    assert axis.split() == ["0:00", "9:58"]
    assert len(axis) == len(lines[0]) < 80
    # The last digit may stand for fewer windows than the others.
    odd = over_time_lines(row(file_name="mix.mp3", over_time=curve(*windows, [0.0, 0.0, 1.0])))
    assert odd[2].endswith("79")


def test_a_name_that_is_long_or_odd_keeps_its_line() -> None:
    genres = ("progressive death metal", "b")
    lines = over_time_lines(row(file_name="a\n\x1b[2Jb.wav", over_time=curve([0.6, 0.4], genres=genres)))
    assert lines[0].startswith(r"'a\n\x1b[2Jb.wav'")
    assert lines[1] == "  progressive deat 6"


def test_features_of_before_say_nothing_over_time() -> None:
    assert over_time_lines(row(file_name="a.wav", over_time=None)) == ["a.wav: its features say nothing over time"]


def test_answers_that_are_not_to_be_believed_say_so() -> None:
    shown = printed(
        PredictionsTable(
            [
                row(is_uncertain=False, is_unlike=False, distance=0.5),
                row(track_id="unsure", is_uncertain=True, is_unlike=False, distance=0.5),
                row(track_id="noise", is_uncertain=False, is_unlike=True, distance=2.34),
            ],
            name="track_id",
        )
    )
    found = {name: line for line in shown.splitlines() for name in ("blues.00001", "unsure", "noise") if name in line}
    assert "uncertain" in found["unsure"] and "unlike anything learnt" in found["noise"]
    assert "un" not in found["blues.00001"].replace("blues", "")
    assert "note" not in printed(PredictionsTable([row(is_uncertain=None, is_unlike=None)], name="track_id"))


def test_no_rows_are_a_table_too() -> None:
    assert "0 predictions" in printed(PredictionsTable([], name="track_id"))


@pytest.mark.parametrize("name", ["take [2].wav", "[/] odd.wav", "[red]alert.wav"])
def test_names_are_text_not_markup(name: str) -> None:
    shown = printed(PredictionsTable([row(file_name=name, genre=name)], name="file_name"))
    assert shown.count(name) == 2


def test_names_do_nothing_to_the_terminal() -> None:
    name = "a\n\x1b[2Jb.wav"
    refused = {
        "sha256": "ab" * 32,
        "file_name": name,
        "reason": "cut",
        "reason_code": "cut_short",
        "topic": "t",
        "judged_by": "gate1",
        "stage": "stream",
        "kept_path": None,
        "quarantined_at": datetime(2026, 1, 2, tzinfo=UTC),
        "closed_at": None,
    }
    loaded = {"table": "quarantine", "dataset": "own", "track_id": f"jazz.{name}", **refused, "stage": "raw_audio"}
    for shown in (
        printed(PredictionsTable([row(file_name=name)], name="file_name")),
        "\n".join(quarantine_lines([{"table": "stream_quarantine", **refused}], {"streams": 1}, 80)),
        "\n".join(quarantine_lines([loaded], {"dataset own": 1}, 80)),
    ):
        assert "\x1b[2J" not in shown
        assert r"'a\n\x1b[2Jb.wav'" in shown


def test_a_refused_clip_is_shown_with_its_reason_and_the_reason_s_code() -> None:
    about = {"table": "stream_quarantine", "sha256": "ab" * 32, "file_name": "a.wav", "reason": "cut"}
    about |= {"quarantined_at": datetime(2026, 1, 2, tzinfo=UTC), "closed_at": None, "stage": "stream"}
    about |= {"topic": "t", "judged_by": "gate1", "kept_path": None}
    new, old = {**about, "reason_code": "cut_short"}, {**about, "reason_code": ""}
    lines = quarantine_lines([new, old], {"streams": 2}, 80)
    assert lines[2:4] == ["    cut", "    code cut_short, topic t, judged by gate1, bytes not kept"]
    assert lines[5:] == ["    cut", "    topic t, judged by gate1, bytes not kept"]


def test_status_names_each_service_and_why_it_is_ill() -> None:
    service = ServiceStatus(
        "namenode", "unhealthy", 12, "hdfs://h:1", 2**20, None, None, None, reason="nothing answers at [h]:1"
    )
    lines = [
        line.plain for line in status_lines([service, service._replace(service="kafka", state="running", reason="")])
    ]
    assert "namenode       unhealthy (nothing answers at [h]:1)" in lines
    assert "2 MiB" in lines[-1]


def test_each_stream_has_a_line_about_its_producer() -> None:
    names = ("", "radio", "tape", "vinyl")
    streams = [StreamSettings(name=name, topic=f"{name}_clips", watch_folder=Path("/d"), dataset="") for name in names]
    now = datetime.now(UTC)
    running = Producer("_clips", "here", "/d", 5, now, now, None, None, 3, 2, 1)
    silent = running._replace(beat_at=now - timedelta(seconds=SILENT_S), last_error="the database is locked")
    ended = running._replace(ended_at=now)
    lines = producer_lines(streams, [running, silent, ended, None])
    assert lines[0] == "producer of _clips (/d): running (pid 5 on here): 3 sent, 2 refused, 1 waiting"
    assert lines[1].startswith("producer of radio_clips (/d): silent since 2")
    assert lines[1].endswith("; the database is locked")
    assert "not running since" in lines[2]
    assert "never was" in lines[3]

    rows = producer_rows(streams, [running, silent, ended, None], Path("/logs"))
    assert [(row["service"], row["state"], row["pid"]) for row in rows] == [
        ("folder_producer", "running", 5),
        ("folder_producer_radio", "silent", 5),
        ("folder_producer_tape", "stopped", None),
        ("folder_producer_vinyl", "stopped", None),
    ]
    assert rows[1]["reason"] == "the database is locked"
    assert all(row.keys() == set(ServiceStatus._fields) for row in rows)


def test_what_is_loaded_again_says_what_changed_and_what_is_stale() -> None:
    columns = ("track_id", "sha256", "status")
    before = pd.DataFrame([("a", "1", "accepted"), ("b", "2", "accepted"), ("c", "3", "accepted")], columns=columns)
    now = pd.DataFrame(
        [("a", "1", "accepted"), ("b", "9", "accepted"), *((f"n{i}", "5", "accepted") for i in range(7))],
        columns=columns,
    )
    changes = manifest_changes(before, now)
    assert (changes.changed, changes.removed, changes.kept) == (["b"], ["c"], 1)
    stored = [row(track_id=name) for name in ("a", "b", "c", "c")]
    assert loaded_again_lines("own", changes, stored, is_used=True) == [
        "dataset own: 7 added, 1 changed, 1 removed, 1 as before",
        "  added: n0, n1, n2, n3, n4 and 2 more",
        "  changed: b",
        "  removed: c",
        "stale now: its features, split, models and predictions; make them again with",
        "  genres retrain --dataset own",
        "of audio that is no longer in it: 3 stored predictions",
    ]
    assert loaded_again_lines("own", manifest_changes(now, now), stored, is_used=True) == [
        "dataset own: nothing changed, 9 clips as before"
    ]
    assert not any("stale" in line for line in loaded_again_lines("own", changes, [], is_used=False))
    refused = now.assign(status=["quarantined", *now["status"][1:]])
    assert manifest_changes(now, refused).changed == ["a"]
