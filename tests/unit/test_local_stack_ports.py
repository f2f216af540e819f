"""Ports: two folders get two blocks, a folder keeps its block, and a taken port is named with its holder."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from genres.errors import GenresError
from genres.settings import PORT_BLOCK, Ports, Settings
from local_stack.ports import held_by_another, is_free_block, require_free_ports, reserve_ports
from local_stack.services import Service, services


@pytest.fixture
def no_port_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the choice of ports to the code: no variable, no ``.env``."""
    monkeypatch.delenv("GENRES_PORT_BASE", raising=False)
    monkeypatch.delenv("GENRES_STATE_DIR", raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.mark.usefixtures("no_port_base")
def test_two_folders_get_two_blocks(tmp_path: Path) -> None:
    first = reserve_ports(Settings(state_dir=tmp_path / "first"))
    # Any port of a block is enough to make it somebody else's: here the first stack's Kafka.
    with socket.create_server(("127.0.0.1", first.ports.kafka)):
        second = reserve_ports(Settings(state_dir=tmp_path / "second"))
    assert second.port_base >= first.port_base + PORT_BLOCK
    assert not set(first.ports) & set(second.ports)


@pytest.mark.usefixtures("no_port_base")
def test_a_listener_on_all_addresses_takes_the_block_too(tmp_path: Path) -> None:
    base = reserve_ports(Settings(state_dir=tmp_path / "first")).port_base
    with socket.create_server(("0.0.0.0", Ports.from_base(base).mlflow)):  # noqa: S104 - that is the point
        assert not is_free_block(base)
    assert is_free_block(base)


@pytest.mark.usefixtures("no_port_base")
def test_a_folder_keeps_its_block_for_later_commands(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    chosen = reserve_ports(settings).port_base
    with socket.create_server(("127.0.0.1", Ports.from_base(chosen).namenode)):
        assert reserve_ports(settings).port_base == chosen
        assert Settings(state_dir=tmp_path).port_base == chosen


@pytest.mark.usefixtures("no_port_base")
def test_a_port_base_that_was_set_wins_and_is_kept(tmp_path: Path) -> None:
    reserve_ports(Settings(state_dir=tmp_path))
    assert reserve_ports(Settings(state_dir=tmp_path, port_base=31_000)).port_base == 31_000
    assert Settings(state_dir=tmp_path).port_base == 31_000


def test_taken_port_is_named_with_service_and_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        base = port - Ports.from_base(0).mlflow
        settings = Settings(state_dir=tmp_path, port_base=base, mlflow_tracking_uri="")
        mlflow = next(service for service in services(settings) if service.name == "mlflow")
        with pytest.raises(GenresError) as taken:
            require_free_ports(mlflow)
    assert str(taken.value).startswith(f"port {port}, which mlflow needs for HTTP, is taken by process {os.getpid()} (")
    assert "GENRES_PORT_BASE" in str(taken.value)
    require_free_ports(mlflow)


def test_a_port_is_held_by_another_or_by_a_process_and_its_children(tmp_path: Path) -> None:
    code = (
        "import os, socket, time; listener = socket.create_server(('127.0.0.1', 0)); "
        "print(listener.getsockname()[1], flush=True); time.sleep(600)"
    )
    parent = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", sys.executable, "-c", code]
    with subprocess.Popen(parent, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            port = int(started.stdout.readline())
            service = Service("mlflow", "", lambda: None, ports={"HTTP": port})
            (child,) = psutil.Process(started.pid).children()
            assert held_by_another(service, child.pid) is None
            assert held_by_another(service, started.pid) is None
            with subprocess.Popen(["/bin/sleep", "600"]) as other:
                found = held_by_another(service, other.pid)
                other.kill()
            assert found == f"port {port} is held by process {child.pid}"
        finally:
            children = psutil.Process(started.pid).children()
            for process in (*children, started):
                process.kill()
            psutil.wait_procs(children, timeout=60)
    assert held_by_another(service, os.getpid()) is None, "nobody holds it"


@pytest.mark.usefixtures("no_port_base")
def test_a_choice_that_cannot_be_kept_leaves_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve_ports(Settings(state_dir=tmp_path, port_base=18_000))

    def half(path: Path, text: str) -> int:
        with path.open("w") as file:
            file.write(text[:-3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(GenresError, match=r"stack\.env cannot be written: No space left on device"):
        reserve_ports(Settings(state_dir=tmp_path, port_base=31_000))
    assert Settings(state_dir=tmp_path).port_base == 18_000


def test_no_two_services_share_a_port(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, port_base=18_000)
    used = [port for service in services(settings) for port in service.ports.values()]
    assert len(used) == len(set(used))
    assert set(used) <= set(range(18_000, 18_000 + PORT_BLOCK))


def test_a_process_that_has_ended_holds_no_port() -> None:
    """What answered in its place was another's, so a service that ended in this moment is not healthy."""
    with socket.create_server(("127.0.0.1", 0)) as other, subprocess.Popen(["/bin/true"]) as ended:
        ended.wait()
        service = Service("mlflow", "", lambda: None, ports={"HTTP": other.getsockname()[1]})
        assert held_by_another(service, ended.pid) == f"process {ended.pid} has ended"
