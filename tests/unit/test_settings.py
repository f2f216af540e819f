"""Settings: one door, a known order of precedence, paths that mean the same everywhere, and no secret shown."""

import ast
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from genres.settings import PORT_BLOCK, PROJECT_DIR, Ports, Settings

OURS = ("genres", "genre_assets", "genres_cli", "genres_dagster", "local_stack", "spark", "streaming_sensors")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("GENRES_"):
            monkeypatch.delenv(name)
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")


def reads_of_the_environment(source: str) -> list[int]:
    """Lines that read ``os.environ`` or ``os.getenv``; setting a variable for a library is no reading."""
    tree = ast.parse(source)
    set_here = {
        id(target.value if isinstance(target, ast.Subscript) else target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AugAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }
    attributes = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"environ", "getenv"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
        and id(node) not in set_here
    ]
    imports = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and {name.name for name in node.names} & {"environ", "getenv"}
    ]
    return attributes + imports


def test_the_door_is_the_only_one() -> None:
    assert reads_of_the_environment("import os\nos.environ['A'] = '1'\nx = os.environ['A']\nos.getenv('A')") == [3, 4]
    assert reads_of_the_environment("from os import environ\nimport os\nos.environ |= {'A': '1'}") == [1]
    modules = [path for package in OURS for path in (PROJECT_DIR / package).rglob("*.py")]
    assert len(modules) > 40
    reading = {str(path.relative_to(PROJECT_DIR)): reads_of_the_environment(path.read_text()) for path in modules}
    assert {name: lines for name, lines in reading.items() if lines} == {}


def test_later_sources_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    assert Settings(state_dir=state).port_base == 18000
    (state / "stack.env").write_text("GENRES_PORT_BASE=20000\nGENRES_UPLOAD_THREADS=1\n")
    assert Settings(state_dir=state).port_base == 20000
    (tmp_path / ".env").write_text(f"GENRES_PORT_BASE=21000\nGENRES_STATE_DIR={state}\n")
    assert (Settings().port_base, Settings().upload_threads) == (21000, 1), "the state folder may stand in .env"
    monkeypatch.setenv("GENRES_PORT_BASE", "22000")
    assert Settings().port_base == 22000
    assert Settings(port_base=23000).port_base == 23000


def test_ports_are_different_and_inside_the_block() -> None:
    ports = Ports.from_base(20_000)
    assert len(set(ports)) == len(ports)
    assert all(20_000 <= port < 20_000 + PORT_BLOCK for port in ports)


def test_relative_paths_mean_the_same_from_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENRES_AUDIO", "music")
    monkeypatch.setenv("GENRES_STATE_DIR", "state")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "stack.env").write_text("GENRES_PORT_BASE=20000")
    settings = Settings()
    assert (settings.audio, settings.state_dir) == (tmp_path / "music", tmp_path / "state")
    assert settings.port_base == 20000
    assert settings.path_variables == {
        "GENRES_AUDIO": str(tmp_path / "music"),
        "GENRES_STATE_DIR": str(tmp_path / "state"),
        "GENRES_WATCH_FOLDER": str(tmp_path / "state" / "drop"),
    }
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings(audio=Path("~/music")).audio == tmp_path / "music"


def test_a_folder_that_cannot_be_followed_is_one_that_is_not_there(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for name in (loop, Path("~nobody-of-this-name/music")):
        audio = Settings(audio=name).audio
        assert audio is not None and audio.is_absolute() and not audio.exists()


def test_an_empty_value_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENRES_AUDIO", "")
    assert Settings().audio is None


def test_secrets_are_not_shown() -> None:
    settings = Settings(database_url="postgresql+psycopg://me:hunter2@host/genres")  # type: ignore[arg-type]
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter2" not in shown
    assert "hunter2" in settings.database


def test_a_service_is_embedded_until_its_address_is_set() -> None:
    assert Settings().embedded == {"hdfs", "kafka", "spark", "mlflow"}
    settings = Settings(mlflow_tracking_uri="http://elsewhere:5000", spark_remote="sc://elsewhere:15002")
    assert settings.embedded == {"hdfs", "kafka"}
    assert (settings.tracking_uri, settings.remote) == ("http://elsewhere:5000", "sc://elsewhere:15002")
    settings = Settings(hdfs_url="hdfs://elsewhere:8020", webhdfs_url="http://elsewhere:9870", port_base=20_000)
    assert (settings.hdfs, settings.webhdfs) == ("hdfs://elsewhere:8020", "http://elsewhere:9870")
    assert settings.tracking_uri == "http://127.0.0.1:20050"


@pytest.mark.parametrize("half", [{"hdfs_url": "hdfs://h:8020"}, {"webhdfs_url": "http://h:9870"}])
def test_hdfs_addresses_come_together(half: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="GENRES_HDFS_URL and GENRES_WEBHDFS_URL belong together"):
        Settings(**half)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"port_base": 80},
        {"port_base": 65_500},
        {"dataset": "../up"},
        {"dataset": "A B"},
        {"lake_path": "genres"},
        {"spark_driver_memory": "lots"},
        {"upload_threads": 0},
        {"max_clip_s": 0},
        {"synthetic_clips_per_genre": 2},
    ],
    ids=str,
)
def test_values_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)  # type: ignore[arg-type]


def test_the_state_folder_is_closed_to_others_unless_it_holds_other_things(tmp_path: Path) -> None:
    def mode_of(folder: Path) -> int:
        Settings(state_dir=folder).make_state_dir()
        return folder.stat().st_mode & 0o777

    assert mode_of(tmp_path / "new") == 0o700
    older, home = tmp_path / "older", tmp_path / "home"
    for folder in (older, home):
        folder.mkdir(mode=0o755)
        (folder / "logs").mkdir()
        (folder / "stack.env").touch()
        folder.chmod(0o755)
    (home / "thesis.txt").touch()
    assert (mode_of(older), mode_of(home)) == (0o700, 0o755)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port_base = 20_000  # type: ignore[misc]


def test_the_older_name_of_feature_sets_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Settings(state_dir=tmp_path).feature_sets == ""
    monkeypatch.setenv("GENRES_FEATURE_SET", "gtzan57")
    assert Settings(state_dir=tmp_path).feature_sets == "gtzan57"
    monkeypatch.setenv("GENRES_FEATURE_SETS", "librosa96,gtzan57")
    assert Settings(state_dir=tmp_path).feature_sets == "librosa96,gtzan57"
    with pytest.raises(ValidationError, match="feature_sets"):
        Settings(state_dir=tmp_path, feature_sets="gtzan57, librosa96")


def test_a_clip_ends_before_its_range() -> None:
    said = r"GENRES_CLIP_LIMIT_S=60 is not below GENRES_RANGE_LIMIT_S=45: .* raise the second or lower the first"
    with pytest.raises(ValidationError, match=said):
        Settings(range_limit_s=45)
    assert Settings(range_limit_s=45, clip_limit_s=40).range_limit_s == 45


@pytest.mark.parametrize("name", ["audio", "watch_folder", "state_dir", "cache_dir", "jar_dir", "kafka_ca_file"])
def test_a_url_is_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"GENRES_{name.upper()}", "s3://bucket/folder")
    with pytest.raises(ValidationError) as raised:
        Settings()
    (error,) = raised.value.errors()
    assert f"GENRES_{name.upper()}=s3://bucket/folder is a URL" in error["msg"]


def test_nor_is_it_the_folder_of_another_stream() -> None:
    with pytest.raises(ValidationError, match=r"watch_folder=hdfs://n/x is a URL"):
        Settings(more_streams=[{"name": "radio", "topic": "radio", "watch_folder": "hdfs://n/x"}])  # type: ignore[arg-type]
