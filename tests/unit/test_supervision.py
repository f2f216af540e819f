"""The stack's supervisord: one that is stopped is said to be, and nothing is waited for without end."""

import errno
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from genres.errors import GenresError
from genres.settings import PROJECT_DIR
from local_stack import supervision
from local_stack.program import Program
from local_stack.supervision import Supervisor

ASKED = """
import sys
from pathlib import Path
from genres.errors import GenresError
from local_stack import supervision

supervision._ANSWER_S = 0.5
try:
    supervision.Supervisor(Path(sys.argv[1])).is_running()
except GenresError as error:
    print(error)
"""


def test_a_supervisord_that_does_not_answer_is_named() -> None:
    # A socket's path must be short.
    with tempfile.TemporaryDirectory() as state_dir, socket.socket(socket.AF_UNIX) as silent:
        folder = Path(state_dir) / "supervisor"
        folder.mkdir()
        (folder / "supervisord.conf").write_text(f"[unix_http_server]\nfile = {folder / 's'}\n")
        silent.bind(str(folder / "s"))
        silent.listen()  # the system accepts for it, as for a stopped process
        command = [sys.executable, "-c", ASKED, state_dir]
        done = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, check=True, timeout=60)
    assert f"supervisord of {state_dir} has not answered for 0.5 s" in done.stdout
    assert str(folder / "supervisord.pid") in done.stdout


@pytest.mark.parametrize("name", ["supervisord.conf", "daemon.conf"])
def test_a_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    supervisor = Supervisor(tmp_path)

    def write(**said: str) -> None:
        files = {tmp_path / "supervisor" / "daemon.conf": said.get("daemon.conf", "before")}
        command = ["/bin/true", said.get("supervisord.conf", "before")]
        supervisor._write_files([Program("daemon", command, tmp_path / "daemon", files=files)])

    def half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write()
    file = supervisor.config_file.with_name(name)
    before = file.read_bytes()
    with monkeypatch.context() as full_disk:
        full_disk.setattr(Path, "write_bytes", half)
        full_disk.setattr(Path, "write_text", lambda path, text: half(path, text.encode()))
        write()  # there is nothing to write
        with pytest.raises(GenresError, match=f"{name} cannot be written: No space left on device"):
            write(**{name: "after"})
    assert file.read_bytes() == before
    write(**{name: "after"})
    assert b"after" in file.read_bytes()
    assert {path.name for path in file.parent.iterdir()} == {"supervisord.conf", "daemon.conf"}


PARENT_THAT_REAPS_NOTHING = """
import subprocess
child = subprocess.Popen(["/bin/true"])
print(child.pid, flush=True)
input()
"""


def test_a_process_that_nobody_reaps_has_ended() -> None:
    command = [sys.executable, "-c", PARENT_THAT_REAPS_NOTHING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert supervision._wait_ended([child], timeout_s=5) == []
        assert child.is_running(), "it is still in the table of processes"
        parent.stdin.close()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 500 No\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n<?xml version='1.0'?><meth"]
)
def test_a_supervisord_that_ends_within_its_answer_does_not_run(answer: bytes) -> None:
    with tempfile.TemporaryDirectory() as state_dir, socket.socket(socket.AF_UNIX) as listener:
        supervisor = Supervisor(Path(state_dir))
        supervisor.config_file.parent.mkdir()
        supervisor.config_file.write_text(f"[unix_http_server]\nfile = {state_dir}/s\n")
        listener.bind(f"{state_dir}/s")
        listener.listen()

        def break_off() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed
                    return
                with connection:
                    asked = b""
                    while b"</methodCall>" not in asked:
                        asked += connection.recv(65_536)
                    connection.sendall(answer)

        threading.Thread(target=break_off, daemon=True).start()
        assert not supervisor.is_running()
        assert supervisor.processes() is None
        with pytest.raises(GenresError, match=rf"no supervisord of {state_dir} answers .*run: genres up"):
            supervisor.info("kafka")
        listener.shutdown(socket.SHUT_RDWR)
