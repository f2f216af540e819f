"""Bad input to the ``genres`` command: one line that names it and says what to do, before any daemon is started."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import cjdk
import pytest

from genres.settings import Settings
from genres.store.database import Database
from genres.store.ledger import Dataset, register_dataset
from genres_cli.main import main
from genres_cli.stream_demo import require_own_stream
from local_stack.java import installed_java, java_home
from tests.http_server import served

Fails = Callable[..., str]


@pytest.fixture
def fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run the command, see that it fails as it should, and give its line."""
    for name in os.environ:
        if name.startswith("GENRES_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GENRES_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("GENRES_PORT_BASE", "64000")

    def run(*arguments: str, **variables: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["genres", *arguments])
            with pytest.raises(SystemExit) as end:
                main()
        assert end.value.code == 1
        assert not (tmp_path / "state" / "supervisor").exists(), "a daemon's supervisor was prepared"
        return the_line(capsys.readouterr().err)

    return run


def the_line(stderr: str) -> str:
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("genres: ")
    return lines[0].removeprefix("genres: ")


@pytest.fixture
def music(tmp_path: Path, write_clips: Callable[..., None]) -> Path:
    folder = tmp_path / "music"
    write_clips(folder, ("blues", "metal"), 3)
    return folder


def test_as_a_user_runs_it_the_command_says_one_line_and_fails(tmp_path: Path) -> None:
    """What the other tests call in this process, as a user does."""
    variables = {"GENRES_AUDIO": str(tmp_path / "nowhere"), "GENRES_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-m", "genres_cli", "demo"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert the_line(done.stderr).startswith(f"audio folder {tmp_path}/nowhere does not exist: check the path")


def test_folder_that_is_not_there(fails: Fails, tmp_path: Path) -> None:
    line = fails("demo", GENRES_AUDIO=str(tmp_path / "nowhere"))
    assert line == (
        f"audio folder {tmp_path}/nowhere does not exist: check the path, and lay the audio out as <genre>/<track>.wav"
    )
    assert fails("load", str(tmp_path / "nowhere")) == line


def test_folder_that_is_empty(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert fails("demo", GENRES_AUDIO=str(tmp_path / "empty")) == (
        f"audio folder {tmp_path}/empty is empty: lay the audio out as <genre>/<track>.wav"
    )


def test_folder_without_genres(fails: Fails, music: Path) -> None:
    line = fails("demo", GENRES_AUDIO=str(music / "blues"))
    assert "holds 3 audio file(s) but no genre folders: lay the audio out as" in line


def test_one_genre_only(fails: Fails, tmp_path: Path, write_clips: Callable[..., None]) -> None:
    write_clips(tmp_path / "own", ("blues",), 3)
    line = fails("demo", GENRES_AUDIO=str(tmp_path / "own"))
    assert line.endswith("holds one genre only, 'blues': a classifier needs two; add another genre's folder")


def test_fewer_clips_than_the_split_needs(fails: Fails, music: Path) -> None:
    (music / "metal" / "metal_0.wav").unlink()
    line = fails("demo", GENRES_AUDIO=str(music))
    assert "too few clips of 'metal': 2: the split needs 3 of each genre" in line


def test_file_instead_of_a_folder(fails: Fails, music: Path) -> None:
    assert "metal_0.wav is a file" in fails("load", str(music / "metal" / "metal_0.wav"))


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ("synthetic", "'synthetic' is "),
        ("../up", "GENRES_DATASET = '../up': "),
        ("Big Band", "GENRES_DATASET = 'Big Band': "),
    ],
)
def test_id_that_cannot_be(fails: Fails, music: Path, dataset: str, said: str) -> None:
    assert fails("demo", GENRES_AUDIO=str(music), GENRES_DATASET=dataset).startswith(said)
    assert fails("load", str(music), "--dataset", dataset).startswith(said)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GENRES_PORT_BASE", "eighteen"),
        ("GENRES_PORT_BASE", "70000"),
        ("GENRES_LAKE_PATH", "genres"),
    ],
)
def test_setting_out_of_range(fails: Fails, name: str, value: str) -> None:
    assert fails("demo", **{name: value}).startswith(f"{name} = '{value}': ")


@pytest.mark.parametrize("half", ["GENRES_HDFS_URL", "GENRES_WEBHDFS_URL"])
def test_half_of_the_hdfs_addresses(fails: Fails, half: str) -> None:
    line = fails("demo", **{half: "http://127.0.0.1:1"})
    assert line.startswith("GENRES_HDFS_URL and GENRES_WEBHDFS_URL belong together")
    assert line.endswith("set both")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"GENRES_MLFLOW_TRACKING_URI": "localhost:5000"}, "localhost:5000"),
        ({"GENRES_SPARK_REMOTE": "spark://localhost:7077"}, "spark://localhost:7077"),
        ({"GENRES_SPARK_REMOTE": "sc://localhost:port"}, "sc://localhost:port"),
        ({"GENRES_SPARK_REMOTE": "sc://localhost:99999"}, "sc://localhost:99999"),
        ({"GENRES_MLFLOW_TRACKING_URI": "http://mlflow..internal"}, "http://mlflow..internal"),
        ({"GENRES_KAFKA_BOOTSTRAP_SERVERS": "broker"}, "broker"),
        ({"GENRES_HDFS_URL": "namenode:8020", "GENRES_WEBHDFS_URL": "http://127.0.0.1:1"}, "namenode:8020"),
        ({"GENRES_HDFS_URL": "hdfs://127.0.0.1:1", "GENRES_WEBHDFS_URL": "127.0.0.1:9870"}, "127.0.0.1:9870"),
        ({"GENRES_DATABASE_URL": "genres.db"}, "GENRES_DATABASE_URL"),
        ({"GENRES_DATABASE_URL": "mysql://me:hunter2@host/genres"}, "mysql"),
        ({"GENRES_DATABASE_URL": "postgresql+psycopg://me:hunter2@host:x/genres"}, "GENRES_DATABASE_URL"),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "",
)
def test_address_that_is_none(fails: Fails, variables: dict[str, str], named: str) -> None:
    line = fails("demo", **variables)
    assert named in line
    assert any(variable in line for variable in variables), "it says which setting to fix"
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("GENRES_DAGSTER_DATABASE_URL", "mysql://me:hunter2@host/dagster", "GENRES_DAGSTER_DATABASE_URL: write "),
        ("GENRES_TOPIC", "http://me:hunter2@host", "GENRES_TOPIC = 'http://***@host': "),
        (
            "GENRES_MLFLOW_TRACKING_URI",
            "https://me:hunter2@mlflow",
            "GENRES_MLFLOW_TRACKING_URI = 'https://***@mlflow'",
        ),
        ("GENRES_SPARK_REMOTE", "sc://host:1;token=hunter2", "GENRES_SPARK_REMOTE = 'sc://host:1;***' is no address"),
        ("GENRES_KAFKA_BOOTSTRAP_SERVERS", "me:hunter2@host:1", "GENRES_KAFKA_BOOTSTRAP_SERVERS = '***@host:1'"),
        ("SPARK_CONNECT_AUTHENTICATE_TOKEN", "hunter2", "SPARK_CONNECT_AUTHENTICATE_TOKEN is set"),
    ],
)
@pytest.mark.parametrize("command", ["demo", "status"])
def test_no_secret_of_a_wrong_setting_is_printed(fails: Fails, command: str, name: str, value: str, shown: str) -> None:
    line = fails(command, **{name: value})
    assert line.startswith(shown)
    assert "hunter2" not in line


def test_a_nameservice_is_said_to_be_one(fails: Fails) -> None:
    line = fails("demo", GENRES_HDFS_URL="hdfs://cluster", GENRES_WEBHDFS_URL="http://127.0.0.1:1")
    assert line.startswith(
        "GENRES_HDFS_URL = 'hdfs://cluster' is no address of its kind: write hdfs://<host>:<port>; a"
    )
    assert "nameservice (HA) cannot be used: name the NameNode that is active" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("load", "s3://bucket/music"), "FOLDER=s3://bucket/music"),
        (("predict", "hdfs://namenode:8020/a.wav"), "FILES=hdfs://namenode:8020/a.wav"),
        (("features", "music", "-o", "s3://bucket/f.csv"), "output=s3://bucket/f.csv"),
    ],
)
def test_a_url_where_a_path_is_meant(fails: Fails, arguments: tuple[str, ...], named: str) -> None:
    """The path's own type takes one of the two slashes away, and what is left looks like a path."""
    line = fails(*arguments)
    assert named in line and "is a URL, and only a path of this machine serves there" in line


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        (
            {"GENRES_HDFS_URL": "hdfs://127.0.0.1:1", "GENRES_WEBHDFS_URL": "http://127.0.0.1:1"},
            "namenode at hdfs://127.0.0.1:1",
        ),
        ({"GENRES_MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}, "mlflow at http://127.0.0.1:1"),
        ({"GENRES_SPARK_REMOTE": "sc://127.0.0.1:1"}, "spark-connect at sc://127.0.0.1:1"),
        ({"GENRES_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "kafka at 127.0.0.1:1"),
        (
            {"GENRES_DATABASE_URL": "postgresql+psycopg://me:hunter2@127.0.0.1:1/genres"},
            "postgresql+psycopg://me:***@127.0.0.1:1/genres cannot be used",
        ),
    ],
    ids=["hdfs", "mlflow", "spark", "kafka", "database"],
)
def test_service_of_one_s_own_that_is_down(fails: Fails, variables: dict[str, str], named: str) -> None:
    line = fails("demo", **variables)
    assert named in line
    assert "start it" in line or "that the server runs" in line
    assert "hunter2" not in line


@pytest.mark.parametrize("command", [("up",), ("demo",), ("ui",)])
def test_a_machine_that_lacks_something_is_known_before_anything_is_written(
    fails: Fails, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    base = 64000
    with socket.create_server(("127.0.0.1", Settings(port_base=base).ports.kafka)):
        for variables, said in (
            (
                {"GENRES_MIN_FREE_MIB": str(2**40)},
                r"the disk of .*/state has .* MiB free, less than .*GENRES_MIN_FREE_MIB",
            ),
            ({"GENRES_JAR_DIR": f"{tmp_path}/file/jars"}, r"file cannot be written to, and .*/file/jars is to be kept"),
            (
                {"GENRES_CACHE_DIR": f"{tmp_path}/file/cache"},
                r"file cannot be written to.*set GENRES_CACHE_DIR",
            ),
            ({"GENRES_STATE_DIR": f"{tmp_path}/a b"}, r"the daemons cannot keep data in .*/a b: ' ' is not a letter"),
            ({}, rf"port {base + 92}, which kafka needs for clients, is taken by process {os.getpid()} "),
        ):
            assert re.search(said, fails(*command, **variables))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a Java that is too old, and no network to download another."""
    old = tmp_path / "old java" / "bin" / "java"
    old.parent.mkdir(parents=True)
    old.write_text('#!/bin/sh\necho "openjdk version \\"11.0.2\\"" >&2\n')
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(old.parent.parent))

    def no_network(**_: str) -> Path:
        raise OSError("no route to host")

    monkeypatch.setattr(cjdk, "java_home", no_network)
    for function in (java_home, installed_java):
        function.cache_clear()
    yield
    for function in (java_home, installed_java):
        function.cache_clear()


@pytest.mark.parametrize("command", [("up",), ("demo",), ("load", "music"), ("retrain",), ("ui",)])
@pytest.mark.usefixtures("no_java")
def test_without_java_nothing_is_written(
    fails: Fails, tmp_path: Path, music: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = fails(*command)
    assert line.startswith("no Java 17 or newer in JAVA_HOME or on the PATH, and none could be downloaded (")
    (tmp_path / "file").touch()
    line = fails(*command, GENRES_JDK_DIR=f"{tmp_path}/file/jdks")
    assert line.startswith(f"{tmp_path}/file cannot be written to, and {tmp_path}/file/jdks is to be kept there")
    assert line.endswith("set GENRES_JDK_DIR to another folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "music", "old java"]


def test_features_of_nothing(fails: Fails, tmp_path: Path, music: Path) -> None:
    output = str(tmp_path / "f.csv")
    assert fails("features", str(tmp_path / "gone.wav"), "-o", output) == (
        f"there is no file or folder {tmp_path}/gone.wav"
    )
    (tmp_path / "empty").mkdir()
    assert "empty holds no audio (.wav, .wave, " in fails("features", str(tmp_path / "empty"), "-o", output)
    assert "write to a name that ends in .csv or .parquet" in fails("features", str(music), "-o", f"{tmp_path}/f.txt")
    assert f"there is no folder {tmp_path}/no; make it" in fails("features", str(music), "-o", f"{tmp_path}/no/f.csv")
    assert not list(tmp_path.glob("f.*"))


def test_what_may_not_be_looked_at_is_refused_like_other_files(
    fails: Fails, tmp_path: Path, music: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Root, as whom tests may run, may look at everything; a name that is too long is nobody's.
    long, output = f"{'a' * 300}.wav", tmp_path / "f.csv"
    assert fails("features", long, "-o", str(output)) == (
        f"{long}: the file cannot be read: File name too long; name another file"
    )
    monkeypatch.setattr(sys, "argv", ["genres", "features", long, str(music), "-o", str(output)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert f"refused {long}: the file cannot be read: File name too long" in capsys.readouterr().err
    assert len(output.read_text().splitlines()) == 7


def test_a_state_folder_that_may_not_be_looked_at(fails: Fails, tmp_path: Path) -> None:
    state = str(tmp_path / ("a" * 300))
    for command in ("status", "up", "predictions"):
        assert fails(command, GENRES_STATE_DIR=state) == f"{state}/stack.env: File name too long"


def test_an_error_of_the_system_is_one_line(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, said in (
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("odd\nand long"), "odd and long"),
        (OSError(), "OSError"),
    ):

        def raised(*_: object, error: OSError = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("genres_cli.commands.stack._show_status", raised)
        assert fails("status") == said


@pytest.mark.parametrize(
    "command",
    [
        ("report",),
        ("predict", "music", "--json"),
        ("predict", "music"),
        ("features", "music"),
    ],
)
def test_a_folder_where_a_file_is_to_be_written(
    fails: Fails, tmp_path: Path, music: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    assert fails(*command, "-o", "folder.csv") == "folder.csv is a folder: name a file in it"
    if command != ("features", "music"):  # which looks at the suffix first
        assert fails(*command, "-o", ".") == ". is a folder: name a file in it"
    assert fails(*command, "-o", "no/f.csv") == "no/f.csv: there is no folder no; make it first"


@pytest.mark.parametrize("command", ["page", "metrics"])
@pytest.mark.parametrize("port", ["99999", "-1", "0"])
def test_a_port_that_there_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, port: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["genres", command, "--port", port])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert f"{port} is not in the range 1<=x<=65535" in capsys.readouterr().err


def usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run what is no way to write the command, and give what it says."""
    monkeypatch.setattr(sys, "argv", ["genres", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", [("predictions", "--last"), ("models", "promote"), ("models", "rollback")])
@pytest.mark.parametrize("number", ["0", str(2**31), "9" * 30])
def test_a_number_that_no_database_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], number: str
) -> None:
    assert f"{number} is not in the range" in usage(monkeypatch, capsys, *command, number)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("models", "--dataset", "a", "promote", "1"), "--dataset stands before 'promote'"),
        (("quarantine", "--json", "list"), "--json stands before 'list'"),
    ],
)
def test_an_option_that_would_be_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str
) -> None:
    """Another dataset's champion would be changed than the one that is named."""
    assert named in usage(monkeypatch, capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("predictions", "--dataset"), "dataset"),
        (("models", "--dataset"), "dataset"),
        (("models", "promote", "1", "--why"), "why"),
        (("datasets", "use"), "DATASET"),
        (("quarantine", "retry"), "SHA256"),
    ],
)
def test_words_that_are_not_utf_8(fails: Fails, arguments: tuple[str, ...], named: str) -> None:
    """As the system hands them to Python; of a path they may be."""
    line = fails(*arguments, os.fsdecode(b"a\xff"))
    assert line == f"{named} is a\\xff, which is not UTF-8: check what the terminal or script sends"


def test_features_of_a_text_file(fails: Fails, tmp_path: Path) -> None:
    file = tmp_path / "notes.wav"
    file.write_text("these are not samples")
    line = fails("features", str(file), "-o", str(tmp_path / "f.csv"))
    assert "notes.wav" in line
    assert not (tmp_path / "f.csv").exists()


@pytest.mark.parametrize("arguments", [("predictions",), ("predictions", "--json"), ("predict", "music")])
def test_no_database_yet(fails: Fails, arguments: tuple[str, ...], music: Path) -> None:
    arguments = tuple(str(music) if argument == "music" else argument for argument in arguments)
    assert fails(*arguments).endswith("run `genres up`")


@pytest.mark.parametrize(("options", "named"), [(("--csv",), "CSV"), (("--m3u",), "M3U"), (("-o", "a.csv"), "CSV")])
def test_a_curve_that_there_is_no_place_for(fails: Fails, music: Path, options: tuple[str, ...], named: str) -> None:
    line = fails("predict", str(music), "--over-time", *options)
    assert line == (
        f"--over-time draws beside the table, and {named} has no place for it: leave it out, or take --json, which has "
        "the curves anyway"
    )


def test_dataset_that_was_never_loaded(fails: Fails, tmp_path: Path, music: Path) -> None:
    database = Database(Settings(state_dir=tmp_path / "state").database)
    database.migrate()
    clip = str(music / "metal" / "metal_0.wav")
    assert "no dataset 'synthetic' (known: none): load a folder with `genres load <folder>`" in fails("predict", clip)
    register_dataset(database, Dataset("mine", music, is_synthetic=False, feature_sets=("gtzan57",)))
    assert "no dataset 'jazz' (known: mine)" in fails("predict", clip, "--dataset", "jazz")


def test_predict_files_that_are_not_there(fails: Fails, tmp_path: Path, music: Path) -> None:
    database = Database(Settings(state_dir=tmp_path / "state").database)
    database.migrate()
    register_dataset(database, Dataset("mine", music, is_synthetic=False, feature_sets=("gtzan57",)))
    line = fails("predict", str(tmp_path / "gone.wav"), "--dataset", "mine")
    assert line == f"there is no file or folder {tmp_path}/gone.wav"


@pytest.fixture
def open_dagster(free_port_base: Callable[[], int]) -> Iterator[Callable[[dict[str, str]], int]]:
    """Start what answers like an open Dagster whose stream is scored by what is given; return its port base."""
    with ExitStack() as servers:

        def start(scored_by: dict[str, str]) -> int:
            entries = [{"label": "scored_by", "jsonString": json.dumps(scored_by)}, {"label": "other"}]
            body = json.dumps({"data": {"assetNodes": [{"metadataEntries": entries}]}}).encode()

            class Answer(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(body)

                def do_POST(self) -> None:
                    self.do_GET()

            base = free_port_base()
            servers.enter_context(served(Answer, port=Settings(port_base=base).ports.dagster))
            return base

        yield start


def test_dagster_is_not_opened_twice(fails: Fails, open_dagster: Callable[[dict[str, str]], int]) -> None:
    base = open_dagster({})
    line = fails("ui", GENRES_PORT_BASE=str(base))
    assert f"http://127.0.0.1:{Settings(port_base=base).ports.dagster}" in line
    assert "close it first" in line


def test_dagster_s_port_is_looked_at_before_the_start(fails: Fails, free_port_base: Callable[[], int]) -> None:
    base = free_port_base()
    with socket.socket() as taken:  # by what does not even listen
        taken.bind(("127.0.0.1", Settings(port_base=base).ports.dagster))
        line = fails("ui", GENRES_PORT_BASE=str(base))
    assert line.startswith(f"port {base + 30}, which Dagster needs for its pages, is taken by ")


@pytest.mark.parametrize("code", [0, 1])
def test_a_dagster_that_ends_by_itself_is_no_ui_that_was_closed(
    fails: Fails, tmp_path: Path, free_port_base: Callable[[], int], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    from genres_cli import demo
    from genres_dagster import child_processes

    def running(command: list[str], **options: Any) -> AbstractContextManager[subprocess.Popen[bytes]]:
        assert "genres_dagster.dev" in command
        return real([sys.executable, "-c", f"raise SystemExit({code})"], **options)

    def started(_: object) -> Settings:
        settings = Settings()
        Database(settings.database).migrate()
        settings.dagster_home.mkdir(parents=True, exist_ok=True)
        return settings

    real = child_processes.running
    monkeypatch.setattr(child_processes, "running", running)
    monkeypatch.setattr(demo, "start", started)
    for name in ("_opened", "_print_addresses"):
        monkeypatch.setattr(demo, name, lambda *_, **__: None)
    for name in ("kept_running", "producers_running"):
        monkeypatch.setattr(demo, name, lambda *_: nullcontext())
    monkeypatch.setattr("genres.store.model_registry.ModelRegistry", lambda _: None)
    monkeypatch.setattr("genres_cli.datasets.scoring_line", lambda *_: "")
    monkeypatch.setattr("genres_cli.datasets.current", lambda *_: "")
    line = fails("ui", GENRES_PORT_BASE=str(free_port_base()))
    assert line == "Dagster ended by itself; what it printed above says why"


def test_demo_beside_a_dagster_of_another_dataset(
    fails: Fails, open_dagster: Callable[[dict[str, str]], int], tmp_path: Path, music: Path
) -> None:
    database = Database(Settings(state_dir=tmp_path / "state").database)
    database.migrate()
    register_dataset(database, Dataset("theirs", tmp_path / "theirs", is_synthetic=False, feature_sets=("gtzan57",)))
    for scored_by in ({"dataset": "theirs", "folder": ""}, {"dataset": "", "folder": str(tmp_path / "theirs")}):
        line = fails("demo", GENRES_AUDIO=str(music), GENRES_PORT_BASE=str(open_dagster(scored_by)))
        assert "scores the stream with the champion of dataset 'theirs', not of 'music': close it, or" in line


def test_demo_beside_a_dagster_that_follows_it(
    open_dagster: Callable[[dict[str, str]], int], tmp_path: Path, music: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    database.migrate()
    register_dataset(database, Dataset("theirs", tmp_path / "theirs", is_synthetic=False, feature_sets=("gtzan57",)))
    dataset = Dataset("music", music, is_synthetic=False, feature_sets=("gtzan57",))
    for scored_by in (
        {"dataset": "", "folder": ""},
        {"dataset": "", "folder": str(music)},
        {"dataset": "", "folder": "/never loaded"},
        {"dataset": "music", "folder": "/elsewhere"},
    ):
        require_own_stream(Settings(port_base=open_dagster(scored_by)), database, dataset)


def test_an_id_that_another_folder_has(fails: Fails, tmp_path: Path, music: Path) -> None:
    database = Database(Settings(state_dir=tmp_path / "state").database)
    database.migrate()
    register_dataset(database, Dataset("music", Path("/before"), is_synthetic=False, feature_sets=("gtzan57",)))
    for line in (
        fails("load", str(music)),
        fails("demo", GENRES_AUDIO=str(music)),
        fails("load", str(music), "--dataset", "music"),
    ):
        assert line.startswith("dataset 'music' was loaded from /before: load ")
        assert line.endswith(f"`genres load {music} --dataset music --replace`")
