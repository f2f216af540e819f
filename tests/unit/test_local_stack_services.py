"""What the settings ask for is what runs: embedded services with daemons, external ones with an address only."""

import re
from pathlib import Path

import pytest

from genres.errors import GenresError
from genres.settings import Settings
from local_stack import program
from local_stack.hdfs_daemons import format_namenode, hdfs_programs
from local_stack.services import services
from local_stack.stack import down, start_service, status, up
from local_stack.supervision import Supervisor, tail

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def cluster(tmp_path: Path) -> Settings:
    """Settings of somebody who runs everything elsewhere (here: nowhere)."""
    return Settings(
        state_dir=tmp_path,
        hdfs_url=f"hdfs://{NOWHERE}",
        webhdfs_url=f"http://{NOWHERE}",
        kafka_bootstrap_servers=NOWHERE,
        spark_remote=f"sc://{NOWHERE}/;user_id=somebody",
        mlflow_tracking_uri=f"http://{NOWHERE}",
    )


def test_external_services_have_an_address_and_no_daemon(cluster: Settings) -> None:
    listed = services(cluster)
    assert [service.name for service in listed] == ["namenode", "kafka", "spark-connect", "mlflow"]
    assert all(service.external and not service.ports for service in listed)


def test_external_service_that_does_not_answer_is_unhealthy_with_the_reason(cluster: Settings) -> None:
    for row in status(cluster):
        assert row.state == "unhealthy"
        assert row.reason.startswith("nothing answers at ") and NOWHERE in row.reason
        assert row.pid is None and row.log is None


def test_nothing_runs_in_a_new_folder(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "new")
    assert {row.state for row in status(settings) if row.log} == {"stopped"}
    down(settings)
    assert not (tmp_path / "new").exists()


def test_a_service_without_a_stack_says_how_to_start_one(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, kafka_bootstrap_servers="")
    with pytest.raises(GenresError, match="is not running; start it with: genres up"):
        start_service(settings, "kafka")


@pytest.mark.parametrize("name", ["my music", "a,b", "50%", "Müsik"])
def test_folder_that_the_daemons_cannot_use_is_named(tmp_path: Path, name: str) -> None:
    settings = Settings(state_dir=tmp_path / name, kafka_bootstrap_servers="")
    with pytest.raises(GenresError, match=rf"cannot keep data in .*{name}: .*set GENRES_STATE_DIR"):
        up(settings, on_progress=print)
    assert not (tmp_path / name).exists()


def test_supervisor_refuses_a_path_it_would_cut(tmp_path: Path) -> None:
    from local_stack.program import Program

    folder = tmp_path / "project #1"
    with pytest.raises(GenresError, match=r"cannot use a path with '.*project #1"):
        Supervisor(folder).ensure([Program("sleeper", ["/bin/sleep", "3000"], folder)])


def test_failed_format_leaves_nothing_in_the_namenodes_place(tmp_path: Path) -> None:
    with pytest.raises(GenresError, match=r"namenode: formatting .* failed; check the folder(?s:.*)no disk"):
        format_namenode(tmp_path, ["/bin/sh", "-c", "mkdir name.formatting; echo no disk; exit 1"])
    assert not (tmp_path / "name").exists()


def test_a_format_that_does_not_end_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_FORMAT_S", 5.0)
    with pytest.raises(GenresError, match=r"namenode: formatting .* was not done after 5 s; (?s:.*)looking for"):
        format_namenode(tmp_path, ["/bin/sh", "-c", "echo looking for its host; exec sleep 60"])
    assert not (tmp_path / "name").exists()


def test_formatted_namenode_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "name" / "current").mkdir(parents=True)
    (tmp_path / "name" / "current" / "fsimage_0000000000000000042").write_bytes(b"image")
    format_namenode(tmp_path, ["/bin/false"])
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_no_page_knows_the_header_that_webhdfs_asks_browsers_for(tmp_path: Path) -> None:
    """Its name is each stack's own, and stays, so that nothing is started again for it."""

    def header(settings: Settings) -> str:
        namenode, _ = hdfs_programs(settings, Path("/java"), [])
        (text,) = [text for path, text in namenode.files.items() if path.name == "hdfs-site.xml"]
        for path, content in namenode.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        found = re.search(r"<name>dfs.webhdfs.rest-csrf.custom-header</name>\s*<value>(\w{32})</value>", text)
        assert found is not None
        return found[1]

    one, other = (Settings(state_dir=tmp_path / name) for name in ("one", "other"))
    assert header(one) == header(one) != header(other)


@pytest.mark.parametrize("left", ["", "<configuration>\n  <prop"])
def test_a_file_that_was_cut_short_keeps_no_daemon_from_starting(tmp_path: Path, left: str) -> None:
    conf = tmp_path / "hdfs" / "conf"
    conf.mkdir(parents=True)
    (conf / "hdfs-site.xml").write_text(left)
    namenode, _ = hdfs_programs(Settings(state_dir=tmp_path), Path("/java"), [])
    assert re.search(r"custom-header</name>\s*<value>\w{32}</value>", namenode.files[conf / "hdfs-site.xml"])


def test_tail_is_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    assert tail(log, 3) == ""
    log.write_text("".join(f"line {number}\n" for number in range(20_000)))
    assert tail(log, 3) == "line 19997\nline 19998\nline 19999"
