"""``genres quarantine``: which refused clips are chosen and sent again, and one line for each that cannot be."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kafka
import pytest
from kafka.errors import KafkaTimeoutError

from genres.audio import gate
from genres.audio.feature_sets import feature_sets_named
from genres.errors import GenresError
from genres.settings import Settings
from genres.store import quarantine
from genres.store.database import Database
from genres.store.ledger import Dataset, register_dataset
from genres.store.quarantine import RefusedClip
from genres.store.stream_ledger import losses, ranges, results
from genres.store.stream_ledger.commits import QuarantinedClip, quarantine_clip
from genres.store.stream_ledger.values import Lost, PartitionKey, Plan
from genres_cli.main import main
from streaming_sensors import quarantine_retry
from streaming_sensors.envelope import ClipMessage, decode
from streaming_sensors.quarantine_retry import judged_by_older, send_again
from streaming_sensors.topic import TopicState
from tests.stream_rig import sha256_of, wav

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CLIP, OTHER = wav([0.1] * 3000), wav([0.2] * 3000)


class Topics:
    """What stands for Kafka: the messages that each topic was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, ClipMessage]] = []
        self.error: Exception | None = None

    def producer(self, **_: Any) -> "Topics":
        return self

    def send(self, topic: str, *, key: bytes, value: bytes, headers: Any) -> Any:
        def get(timeout: float) -> Any:
            if self.error:
                raise self.error
            self.sent.append((topic, decode(key, value, headers)))
            return SimpleNamespace(partition=0, offset=len(self.sent))

        return SimpleNamespace(get=get)

    def close(self, timeout: float) -> None:
        pass


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    topics = Topics()
    monkeypatch.setattr(kafka, "KafkaProducer", topics.producer)
    monkeypatch.setattr(quarantine_retry, "topic_state", lambda _, topic: TopicState(topic, "A", {0: 0}, {0: 1}))
    return topics


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of two streams, and of addresses where nothing listens."""
    radio = [{"name": "radio", "topic": "radio", "watch_folder": str(tmp_path / "radio"), "dataset": "radio"}]
    variables = {
        "STATE_DIR": tmp_path / "state",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'genres.db'}",
        "WATCH_FOLDER": tmp_path / "drop",
        "DATASET": "mine",
        "MORE_STREAMS": json.dumps(radio),
        "PORT_BASE": "64000",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"GENRES_{name}", str(value))
    settings = Settings()
    database = Database(settings.database)
    database.migrate()
    for dataset in ("mine", "radio"):
        register_dataset(database, Dataset(dataset, tmp_path / dataset, is_synthetic=False, feature_sets=("gtzan57",)))
    return settings


def refuse(settings: Settings, data: bytes, name: str, *, now: datetime = NOW, **other: Any) -> str:
    """Quarantine a clip; what the producer refuses lies in ``error/``."""
    about = {"stage": "producer", "reason": "not audio", "judged_by": "gate1", "topic": settings.topic, **other}
    row = QuarantinedClip(sha256=sha256_of(data), file_name=name, suffix=Path(name).suffix, **about)
    assert quarantine_clip(Database(settings.database), row, now=now)
    return row.sha256


def set_aside(folder: Path, name: str, data: bytes) -> None:
    path = folder / "error" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def genres(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command; return its exit code and what it printed on either stream."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["genres", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
            sys.exit(0)
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def open_rows(settings: Settings) -> list[dict[str, Any]]:
    return results.quarantine(Database(settings.database))


def test_what_the_producer_set_aside_goes_to_its_own_topic_with_its_genre(settings: Settings, topics: Topics) -> None:
    for topic, folder in ((settings.topic, "drop"), ("radio", "radio")):
        refuse(settings, CLIP, "x.mp3", topic=topic, genre="rock")
        set_aside(settings.watch_folder.parent / folder, "another.MP3", OTHER)
        set_aside(settings.watch_folder.parent / folder, "x.1.mp3", CLIP)
    done = send_again(settings, open_rows(settings))
    assert (done.sent, done.left) == (2, [])
    assert {topic for topic, _ in topics.sent} == {settings.topic, "radio"}
    for _, message in topics.sent:
        assert (message.data, message.suffix, message.file_name, message.genre) == (CLIP, ".mp3", "x.mp3", "rock")
    assert len(open_rows(settings)) == 2, "the stream closes them, not the sending"


def test_a_file_that_was_set_aside_is_read_for_its_own_row_and_not_for_each(
    settings: Settings, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [wav([number / 10] * 3000) for number in range(6)]
    for number, data in enumerate(clips):
        refuse(settings, data, f"{number}.mp3")
        set_aside(settings.watch_folder, f"{number}.mp3", data)
    set_aside(settings.watch_folder, "another.wav", CLIP)
    reads: Counter[str] = Counter()
    path_open = Path.open

    def counted(path: Path, *arguments: Any, **options: Any) -> Any:
        reads[path.name] += 1
        return path_open(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", counted)
    assert send_again(settings, open_rows(settings)).sent == len(clips)
    assert [reads[f"{number}.mp3"] for number in range(6)] == [2] * 6, "to find it, and to send it"
    assert not reads["another.wav"]


def test_what_is_sent_again_is_known_if_kafka_loses_it(settings: Settings, topics: Topics) -> None:
    refuse(settings, CLIP, "x.wav")
    set_aside(settings.watch_folder, "x.wav", CLIP)
    assert send_again(settings, open_rows(settings)).sent == 1
    database, lost = Database(settings.database), PartitionKey(settings.topic, "A", 0, 1, 3)
    ranges.record_plan(database, Plan(lost=(Lost(lost, "retention took it"),)))
    (loss,) = losses.of_topic(database, settings.topic, "A", {0: 3}).ranges
    # Its refusal stands all the while.
    assert (loss.made_good, loss.lacking) == (1, ())


def test_what_cannot_be_sent_is_a_line_each(
    settings: Settings, topics: Topics, genres: Callable[..., tuple[int, str, str]]
) -> None:
    refuse(settings, b"gone", "gone\n[bold].wav")
    refuse(settings, b"not kept", "not kept.wav", stage="stream")
    refuse(settings, b"foreign", "foreign.wav", topic="of nobody")
    code, out, err = genres("quarantine", "retry", "--reason", "audio")
    assert code == 1
    assert len(out.splitlines()) == 3
    assert "[bold]" in out and "/error: drop the file again" in out
    assert "not kept.wav" in out and "its bytes are not on HDFS: drop the file again" in out
    assert "no stream has its topic 'of nobody': add it to GENRES_MORE_STREAMS" in out
    assert err == "genres: none of 3 refused clips can be sent again\n"
    assert not topics.sent


def test_clips_are_chosen_by_hash_reason_and_time(
    settings: Settings, topics: Topics, genres: Callable[..., tuple[int, str, str]]
) -> None:
    for number, (reason, now) in enumerate([("cut", NOW), ("not audio", NOW), ("not audio", NOW + timedelta(days=2))]):
        data = wav([number / 10] * 3000)
        refuse(settings, data, f"{number}.wav", reason=reason, now=now)
        set_aside(settings.watch_folder, f"{number}.wav", data)

    def chosen(*arguments: str) -> list[str]:
        topics.sent.clear()
        code, out, _ = genres("quarantine", "retry", *arguments)
        count = len(topics.sent)
        clips = "refused clip is" if count == 1 else "refused clips are"
        assert code == 0 and f"{count} of {count} {clips} sent again" in out
        return sorted(message.file_name for _, message in topics.sent)

    assert chosen("--reason", "not audio") == ["1.wav", "2.wav"]
    assert chosen("--reason", "not audio", "--since", "2026-01-03") == ["2.wav"]
    assert chosen(sha256_of(wav([0.1] * 3000))[:10]) == ["1.wav"]
    for arguments, line in (
        (["abcdef0"], "no such refused clip of a stream: abcdef0"),
        (["--since", "2027-01-01"], "no refused clip of a stream is like that"),
        ([], "say which clips"),
        ([""], "say which clips"),
    ):
        code, out, err = genres("quarantine", "retry", *arguments)
        assert (code, out, len(err.splitlines())) == (1, "", 1) and line in err


class Registry:
    """What stands for MLflow: the champions' versions of features, by dataset."""

    champions: dict[str, str]

    def __init__(self, tracking_uri: str) -> None:
        pass

    def find_champion(self, dataset: str) -> Any:
        version = self.champions.get(dataset)
        return version and SimpleNamespace(feature_version=version)


def test_only_what_an_older_version_judged(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Radio's champion reads other features than the newest that the dataset has; the other stream has none yet."""
    monkeypatch.setattr(quarantine_retry, "ModelRegistry", Registry)
    monkeypatch.setattr(Registry, "champions", {"radio": "librosa96-1"}, raising=False)
    of_dataset = f"{gate.VERSION}+{feature_sets_named(['gtzan57']).feature_version}"
    for number, (stage, judged_by, topic) in enumerate(
        [
            ("producer", gate.VERSION, settings.topic),
            ("producer", "gate1", settings.topic),
            ("stream", of_dataset, settings.topic),
            ("stream", f"{gate.VERSION}+gtzan57-0", settings.topic),
            ("stream", "", settings.topic),
            ("stream", f"{gate.VERSION}+librosa96-1", "radio"),
            ("stream", of_dataset, "radio"),
        ]
    ):
        refuse(settings, bytes([number]), f"{number}.wav", stage=stage, judged_by=judged_by, topic=topic)

    def older() -> list[str]:
        found = judged_by_older(settings, Database(settings.database), open_rows(settings))
        return sorted(row["file_name"] for row in found)

    assert older() == ["1.wav", "3.wav", "4.wav", "6.wav"]
    Registry.champions = {"radio": feature_sets_named(["gtzan57"]).feature_version}  # by a rollback
    assert older() == ["1.wav", "3.wav", "4.wav", "5.wav"]


def test_what_producers_refused_is_chosen_without_mlflow(settings: Settings) -> None:
    refuse(settings, CLIP, "x.wav", judged_by="gate1")
    assert len(judged_by_older(settings, Database(settings.database), open_rows(settings))) == 1


@pytest.mark.parametrize("stage", ["producer", "stream"])
def test_an_outage_is_one_line(settings: Settings, genres: Callable[..., tuple[int, str, str]], stage: str) -> None:
    """Nothing listens where Kafka and HDFS should be."""
    refuse(settings, CLIP, "x.wav", stage=stage, kept_path="/genres/stream/quarantine/x" if stage == "stream" else None)
    set_aside(settings.watch_folder, "x.wav", CLIP)
    code, out, err = genres("quarantine", "retry", "--reason", "not audio")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert ("HDFS" if stage == "stream" else "Kafka") in err


def test_a_broker_that_does_not_take_the_clips_is_one_line(settings: Settings, topics: Topics) -> None:
    refuse(settings, CLIP, "x.wav")
    set_aside(settings.watch_folder, "x.wav", CLIP)
    topics.error = KafkaTimeoutError("no answer")
    with pytest.raises(GenresError, match=r"does not take the clips \(KafkaTimeoutError\): is it up\?"):
        send_again(settings, open_rows(settings))


def test_closed_refusals_are_listed_only_as_history(
    settings: Settings, genres: Callable[..., tuple[int, str, str]]
) -> None:
    refuse(settings, CLIP, "x.wav", reason="by the old gate")
    refuse(settings, CLIP, "x.wav", reason="by the new gate", judged_by="gate2")

    def listed(*arguments: str) -> list[str]:
        code, out, _ = genres("quarantine", "list", "--json", *arguments)
        assert code == 0
        return [row["reason"] for row in json.loads(out)]

    assert listed() == ["by the new gate"]
    assert sorted(listed("--history")) == ["by the new gate", "by the old gate"]


def test_the_batch_s_refusals_stand_beside_the_stream_s(
    settings: Settings, topics: Topics, genres: Callable[..., tuple[int, str, str]]
) -> None:
    database, batch = Database(settings.database), "b" * 64
    refuse(settings, CLIP, "x.wav", reason="cut")
    for dataset, name in (("mine", "notes.wav"), ("radio", "jingle.wav")):
        clip = RefusedClip("jazz.notes", name, batch, "raw_audio", "not audio at all", "not_audio")
        quarantine.replace(database, dataset, "raw_audio", [clip], run_id="r")

    def listed(*arguments: str) -> list[tuple[str, str]]:
        code, out, _ = genres("quarantine", *arguments, "--json")
        assert code == 0
        return [(row["table"], row["file_name"]) for row in json.loads(out)]

    stream, mine, other = ("stream_quarantine", "x.wav"), ("quarantine", "notes.wav"), ("quarantine", "jingle.wav")
    assert listed() == listed("list") == listed("list", "--history") == [stream, mine]
    assert listed("--dataset", "radio") == listed("list", "--dataset", "radio") == [stream, other]
    assert listed("list", "--reason", "at all") == listed("list", "bbbb") == [mine]
    assert listed("list", "--reason", "not_audio") == [mine]
    assert listed("list", "--reason", "not_a") == [], "a code is named whole"
    assert listed("list", "--since", "2026-01-03") == [mine]
    assert listed("list", "--since", "2100-01-03") == []
    assert listed("list", "--older-versions") == [stream], "a load judges each clip by today's version"
    for arguments, line in (
        (["list", "--older-versions", "--dataset", "mine"], "--older-versions is about streams"),
        (["--dataset", "nobody's"], "nobody's"),
        (["retry", "bbbb"], "no such refused clip of a stream: bbbb"),
        (["retry", "--reason", "at all"], "a dataset's are judged again by loading it"),
    ):
        code, out, err = genres("quarantine", *arguments)
        assert (code, out, len(err.splitlines())) == (1, "", 1) and line in err
    assert not topics.sent
