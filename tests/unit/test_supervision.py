"""The stack's supervisord: one that is stopped is said to be, and not waited for without end."""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from genres.settings import PROJECT_DIR

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
