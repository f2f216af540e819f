"""Launching: the one line that says why a step failed, and which dataset the settings mean."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from pydantic import SecretStr, ValidationError

from genres.audio.feature_sets import chosen_sets
from genres.errors import GenresError
from genres.settings import PROJECT_DIR, Settings
from genres.store import ledger
from genres.store.database import Database
from genres.store.ledger import Dataset
from genres_dagster import launch
from genres_dagster.checks import check, check_spec
from genres_dagster.launch import WORKSPACE, BatchRun, failure_reason, open_instance, register
from streaming_sensors.stream import Stream


@pytest.fixture
def choose(database: Database) -> Callable[..., Dataset]:
    return lambda settings, **how: launch.choose_dataset(settings, database, **{"on_notice": pytest.fail, **how})


def error(cls_name: str, message: str, cause: Any = None) -> Any:
    return SimpleNamespace(cls_name=cls_name, message=message, cause=cause)


STEP = "dagster._core.errors.DagsterExecutionStepExecutionError: Error occurred while executing op"


def test_our_own_error_speaks_wherever_it_stands() -> None:
    ours = error("GenresError", "genres.errors.GenresError: no folder /x: make it\n")
    assert failure_reason(error("DagsterExecutionStepExecutionError", STEP, ours)) == "no folder /x: make it"
    low = error("ConnectionError", "ConnectionError: [Errno 111] refused")
    ours = error("GenresError", "genres.errors.GenresError: HDFS does not answer: start it", low)
    assert failure_reason(error("DagsterExecutionStepExecutionError", STEP, ours)) == "HDFS does not answer: start it"


def test_our_error_from_a_spark_worker_is_found_in_the_text() -> None:
    text = (
        "pyspark.errors.exceptions.connect.PythonException: An exception was thrown from the Python worker:\n"
        "Traceback (most recent call last):\n"
        '  File "clip_source.py", line 71, in clips\n'
        "genres.errors.GenresError: HDFS has no /genres/x.wav: materialize raw_audio again\n\n"
        "JVM stacktrace: ..."
    )
    found = failure_reason(error("DagsterExecutionStepExecutionError", STEP, error("PythonException", text)))
    assert found == "HDFS has no /genres/x.wav: materialize raw_audio again"


def test_other_errors_give_their_innermost_first_line() -> None:
    inner = error("RuntimeError", "RuntimeError: 3 clips gave 2 rows\nand more\n")
    assert failure_reason(error("Dagster", STEP, error("ValueError", "ValueError: outer", inner))) == (
        "RuntimeError: 3 clips gave 2 rows"
    )


def test_an_error_without_words_gives_its_name() -> None:
    assert failure_reason(error("AssertionError", "\n")) == "AssertionError"


def test_a_failed_check_is_named_with_what_it_found(tmp_path: Path) -> None:
    @dg.asset(
        check_specs=[
            check_spec("leaky", "no_leak", "", blocking=True),
            check_spec("leaky", "balance", ""),
            check_spec("leaky", "finite", "", blocking=True),
        ]
    )
    def leaky() -> dg.MaterializeResult:
        return dg.MaterializeResult(
            check_results=[
                check("no_leak", False, dataset="own", expected="each sha256 in one part", actual="3 cross"),
                check("balance", False, dataset="own", expected="balance", actual="none", warn=True),
                check("finite", True, dataset="own", expected="every value finite", actual="0 are not"),
            ]
        )

    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize([leaky], instance=instance, raise_on_error=False)
        summary = BatchRun(tmp_path / "log")
        told: list[tuple[str, str]] = []
        for record in instance.get_records_for_run(run.run_id).records:
            launch._take_in(record.event_log_entry, summary, lambda _, kind, text: told.append((kind, text)))
    assert not run.success
    line = "check no_leak of dataset own failed: expected each sha256 in one part, actual 3 cross"
    assert summary.failures == {"leaky": line}
    assert ("failed", line) in told


def test_a_failed_check_is_named_where_only_the_error_is_known() -> None:
    text = (
        "dagster._core.errors.DagsterAssetCheckFailedError: 1 blocking asset check failed with ERROR severity:\n"
        "track_split: no_leak\n"
    )
    assert failure_reason(error("DagsterAssetCheckFailedError", text)).endswith("severity: track_split: no_leak")


def test_without_a_folder_the_clips_are_synthetic(tmp_path: Path, choose: Callable[..., Dataset]) -> None:
    dataset = choose(Settings(state_dir=tmp_path, feature_sets=""))
    assert (dataset.dataset, dataset.is_synthetic, dataset.feature_sets) == ("synthetic", True, chosen_sets(""))


def test_a_feature_set_that_there_is_not_is_named(tmp_path: Path, choose: Callable[..., Dataset]) -> None:
    with pytest.raises(GenresError, match="no feature set 'gtzan58': set GENRES_FEATURE_SETS to some of gtzan57"):
        choose(Settings(state_dir=tmp_path, feature_sets="gtzan58"))


def test_a_dataset_keeps_its_feature_sets_unless_others_are_named(
    tmp_path: Path, database: Database, choose: Callable[..., Dataset]
) -> None:
    ledger.register_dataset(database, choose(Settings(state_dir=tmp_path, feature_sets="gtzan57")))
    said: list[str] = []
    kept = choose(Settings(state_dir=tmp_path, feature_sets=""), on_notice=said.append)
    assert kept.feature_sets == ("gtzan57",)
    assert [line for line in said if "dataset 'synthetic' keeps its features, gtzan57" in line] == said != []
    other = choose(Settings(state_dir=tmp_path, feature_sets="librosa96,gtzan57"))
    assert other.feature_sets == ("librosa96", "gtzan57")
    ledger.register_dataset(database, other)
    assert ledger.registered_dataset(database, "synthetic") == other


def test_a_folder_is_its_own_dataset(
    tmp_path: Path, write_clips: Callable[..., None], choose: Callable[..., Dataset]
) -> None:
    folder = tmp_path / "My Music"
    write_clips(folder, ("blues", "metal"), 3)
    assert choose(Settings(audio=folder, feature_sets=""))[:] == ("my_music", folder, False, chosen_sets(""))
    assert choose(Settings(audio=folder, dataset="mine")).dataset == "mine"
    with pytest.raises(GenresError, match=r"'synthetic' is .* name .* with GENRES_DATASET"):
        choose(Settings(audio=folder, dataset="synthetic"))


def test_an_id_of_another_folder_is_refused(
    tmp_path: Path, write_clips: Callable[..., None], database: Database, choose: Callable[..., Dataset]
) -> None:
    for place in ("here", "there"):
        write_clips(tmp_path / place / "music", ("blues", "metal"), 3)
    ledger.register_dataset(database, choose(Settings(audio=tmp_path / "here" / "music")))
    moved = Settings(audio=tmp_path / "there" / "music")
    with pytest.raises(GenresError, match=r"dataset 'music' was loaded from .*/here/music: load .*--replace"):
        choose(moved)
    ledger.register_dataset(database, choose(moved, replaces=True), replaces=True)
    assert choose(moved).source_folder == tmp_path / "there" / "music"
    assert choose(moved.model_copy(update={"dataset": "other"})).dataset == "other"


def test_a_folder_keeps_its_id_whatever_comes_into_it(
    tmp_path: Path, database: Database, choose: Callable[..., Dataset]
) -> None:
    settings = Settings(audio=tmp_path / "music")
    for genre in ("blues", "jazz"):
        (tmp_path / "music" / genre).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "music" / genre / f"{genre}.0000{number}.wav").touch()
    ledger.register_dataset(database, choose(settings))
    (tmp_path / "music" / "jazz" / "my own.wav").touch()
    assert choose(settings).dataset == "gtzan"


def test_the_stream_goes_on_when_its_folder_is_gone_or_grows(
    tmp_path: Path, write_clips: Callable[..., None], database: Database, choose: Callable[..., Dataset]
) -> None:
    folder = tmp_path / "music"
    settings = Settings(state_dir=tmp_path, audio=folder, stream_dataset="", dataset="")
    write_clips(folder, ("blues", "metal"), 3)
    ledger.register_dataset(database, choose(settings)._replace(dataset="as_it_was_called_then"))
    stream = Stream(settings.streams[0])
    assert stream.dataset(settings, database) == "as_it_was_called_then"
    (folder / "metal" / "one more.wav").touch()
    assert stream.dataset(settings, database) == "as_it_was_called_then"
    shutil.rmtree(folder)
    assert stream.dataset(settings, database) == "as_it_was_called_then"
    ledger.register_dataset(database, Dataset("newer", tmp_path, is_synthetic=False, feature_sets=("gtzan57",)))
    assert stream.dataset(settings, database) == "as_it_was_called_then"
    assert stream.dataset(settings.model_copy(update={"audio": None}), database) == "newer"
    named = settings.model_copy(update={"stream_dataset": "named"})
    assert Stream(named.streams[0]).dataset(named, database) == "named"


def test_a_person_is_told_what_was_passed_over(
    tmp_path: Path, write_clips: Callable[..., None], choose: Callable[..., Dataset]
) -> None:
    write_clips(tmp_path / "music", ("blues", "metal"), 3)
    (tmp_path / "music" / "blues" / "cover.jpg").touch()
    told: list[str] = []
    choose(Settings(audio=tmp_path / "music"), on_notice=told.append)
    assert told == ["passed over: not audio by its suffix: 1 .jpg"]


@pytest.mark.parametrize(
    "before", ["nothing", "a link to another checkout", "a link that leads nowhere", "one with another storage"]
)
def test_the_instance_follows_the_code_that_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    settings = Settings(state_dir=tmp_path / "state")
    settings.dagster_home.mkdir(parents=True)
    link = settings.dagster_home / "dagster.yaml"
    if before == "a link to another checkout":
        (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: true}\n")
    if before == "one with another storage":
        link.write_text(Path(launch.__file__).with_name("dagster.yaml").read_text() + "storage: {}\n")
    elif before != "nothing":
        link.symlink_to(tmp_path / "dagster.yaml")
    with open_instance(settings) as instance:
        assert not instance.telemetry_enabled
    assert not link.is_symlink()
    assert link.read_text() == Path(launch.__file__).with_name("dagster.yaml").read_text()
    assert not list(settings.dagster_home.glob("dagster.yaml.*"))


def test_a_dagster_yaml_of_the_users_own_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    settings = Settings(state_dir=tmp_path / "state")
    settings.dagster_home.mkdir(parents=True)
    mine = settings.dagster_home / "dagster.yaml"
    mine.write_text("telemetry: {enabled: false}\n")
    open_instance(settings).dispose()
    assert mine.read_text() == "telemetry: {enabled: false}\n"
    assert not mine.is_symlink()


def test_dagsters_runs_are_kept_in_postgres_if_a_setting_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_postgres_database: Callable[[], str]
) -> None:
    url = new_postgres_database()
    for name in ("DAGSTER_HOME", "GENRES_DAGSTER_DATABASE_URL"):
        monkeypatch.setenv(name, "")
    settings = Settings(state_dir=tmp_path / "state", dagster_database_url=SecretStr(url))

    @dg.asset
    def small() -> None: ...

    with open_instance(settings) as instance:
        result = dg.materialize([small], instance=instance)
    with open_instance(settings) as instance:
        assert instance.get_run_by_id(result.run_id).status == dg.DagsterRunStatus.SUCCESS  # type: ignore[union-attr]
        assert instance.get_latest_materialization_event(dg.AssetKey("small")) is not None
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT run_id FROM runs").scalars().all() == [result.run_id]
    engine.dispose()
    assert not list(settings.dagster_home.rglob("*.db"))


def test_a_database_of_dagsters_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DAGSTER_HOME", "GENRES_DAGSTER_DATABASE_URL"):
        monkeypatch.setenv(name, "")
    url = "postgresql+psycopg://me:hunter2@127.0.0.1:1/runs?connect_timeout=2"
    settings = Settings(state_dir=tmp_path / "state", dagster_database_url=SecretStr(url))
    with pytest.raises(GenresError) as raised:
        open_instance(settings)
    said = str(raised.value)
    assert said.startswith("GENRES_DAGSTER_DATABASE_URL: postgresql+psycopg2://me:***@127.0.0.1:1/runs")
    assert "cannot be used for Dagster's runs" in said
    assert "127.0.0.1" in said.partition("runs: ")[2], "what the driver says"
    assert "\n" not in said
    assert "hunter2" not in said + (settings.dagster_home / "dagster.yaml").read_text()


def test_a_file_of_the_users_own_does_not_hide_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    settings = Settings(state_dir=tmp_path / "state", dagster_database_url=SecretStr("postgresql://me@host/runs"))
    settings.dagster_home.mkdir(parents=True)
    (settings.dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with pytest.raises(GenresError, match=r"dagster\.yaml is your own: name Dagster's storage there"):
        open_instance(settings)


def test_dagsters_database_is_postgres_or_none() -> None:
    with pytest.raises(ValidationError, match="dagster_database_url") as raised:
        Settings(dagster_database_url=SecretStr("mysql://me:hunter2@host/runs"))
    assert "hunter2" not in str(raised.value)


def test_the_workspace_of_the_command_is_that_of_the_checkout() -> None:
    ours, top = (yaml.safe_load(path.read_text()) for path in (WORKSPACE, PROJECT_DIR / "workspace.yaml"))
    assert ours == top
    assert len(ours["load_from"]) == 2


def test_a_registered_dataset_is_a_row_and_a_partition(
    tmp_path: Path,
    write_clips: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    choose: Callable[..., Dataset],
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")  # put back at the end
    settings = Settings(state_dir=tmp_path / "state", audio=tmp_path / "music")
    write_clips(tmp_path / "music", ("blues", "metal"), 3)
    dataset = choose(settings)
    for _ in range(2):
        with open_instance(settings) as instance:
            register(settings, instance, dataset)
            assert instance.get_dynamic_partitions("dataset") == ["music"]
    assert (settings.dagster_home / "dagster.yaml").is_file()
    assert ledger.registered_dataset(Database(settings.database), "music") == dataset


def test_the_state_folder_is_its_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    by_dagster, by_database = (Settings(state_dir=tmp_path / name) for name in ("one", "other"))
    open_instance(by_dagster).dispose()
    Database(by_database.database).migrate()
    for settings in (by_dagster, by_database):
        assert settings.state_dir.stat().st_mode & 0o777 == 0o700


def test_a_dataset_that_is_named_without_a_folder_is_the_one_that_was_loaded(
    choose: Callable[..., Dataset], database: Database, tmp_path: Path
) -> None:
    settings = Settings(state_dir=tmp_path, audio=None, dataset="mine")
    with pytest.raises(GenresError, match=r"no dataset 'mine' \(known: none\): load a folder"):
        choose(settings)
    mine = Dataset("mine", tmp_path / "gone", is_synthetic=False, feature_sets=("gtzan57",))
    ledger.register_dataset(database, mine)
    assert choose(settings) == mine
    for name in ("", "synthetic"):
        assert choose(settings.model_copy(update={"dataset": name})).is_synthetic
