"""What docs/security.md says of listeners, and of what a page of another site reaches, on the running stack."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import requests

from genres.settings import PORT_BLOCK, PROJECT_DIR, Settings
from genres_cli.main import app
from local_stack.hdfs_daemons import _CSRF_HEADER
from local_stack.supervision import Supervisor
from spark.session import open_session, session_config, stop_session

DOCUMENT = (PROJECT_DIR / "docs" / "security.md").read_text()
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}
OTHER_NAME = {**BROWSER, "Host": "music.example"}
"""What a browser sends for a page whose site has made its own name lead here (DNS rebinding)."""
OTHER_PAGE = {**BROWSER, "Origin": "https://music.example"}


def documented() -> dict[str, set[int]]:
    """Return the ports of each process in the table, counted from the block's first one."""
    found: dict[str, set[int]] = {}
    for process, ports in re.findall(r"^\| `([\w-]+)` \| [^|]* \| ([^|]*) \|", DOCUMENT, re.MULTILINE):
        found.setdefault(process, set()).update(int(port) for port in re.findall(r"\d+", ports))
    return found


def listening(process: psutil.Process) -> set[int]:
    """Return the ports on which a process listens, on this machine's own address alone."""
    try:
        sockets = [one for one in process.net_connections(kind="tcp") if one.status == psutil.CONN_LISTEN]
    except psutil.NoSuchProcess:  # it ended just now
        return set()
    assert {one.laddr.ip for one in sockets} <= {"127.0.0.1", "::ffff:127.0.0.1"}
    return {one.laddr.port for one in sockets}


def name_of(process: psutil.Process) -> str:
    """Return the table's name of a process of `genres ui`."""
    try:
        command = process.cmdline()
    except psutil.NoSuchProcess:  # it ended just now, and listens no more
        return ""
    for name, word in (("dagster", "genres_dagster.webserver"), ("page", "page"), ("metrics", "metrics")):
        if word in command:
            return name
    return " ".join(command)


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def opened(stack: Settings, tmp_path: Path, free_port_base: Callable[[], int]) -> Iterator[tuple[psutil.Process, ...]]:
    """Run `genres ui` and `genres metrics` on the stack; yield their processes once each listens."""
    metrics = free_port_base()
    log, running = tmp_path / "output.log", list[subprocess.Popen[bytes]]()

    def start(*arguments: str, ports: Iterable[int]) -> None:
        with log.open("ab") as output:
            command = [sys.executable, "-m", "genres_cli", *arguments]
            running.append(subprocess.Popen(command, stdout=output, stderr=output, env=os.environ))
        while not all(map(answers, ports)):
            assert all(one.poll() is None for one in running), log.read_text()
            time.sleep(0.5)

    try:
        start("ui", ports=(stack.ports.dagster, stack.ports.page))
        start("metrics", "--port", str(metrics), ports=(metrics,))
        yield tuple(psutil.Process(one.pid) for one in running)
    finally:
        for one in running:
            one.send_signal(signal.SIGTERM)
        for one in running:
            one.wait(240)


def test_every_listener_is_in_the_table(stack: Settings, opened: tuple[psutil.Process, ...]) -> None:
    supervisor = Supervisor(stack.state_dir)
    trees = {name: psutil.Process(info.pid) for name, info in (supervisor.processes() or {}).items()}
    processes = [(name, one) for name, root in trees.items() for one in (root, *root.children(recursive=True))]
    processes += [(name_of(one), one) for root in opened for one in (root, *root.children(recursive=True))]
    processes.append(("supervisor", psutil.Process(int((stack.state_dir / "supervisor/supervisord.pid").read_text()))))
    found: dict[str, set[int]] = {}
    elsewhere: dict[str, int] = {}
    for name, process in processes:
        for port in listening(process):
            offset = port - stack.port_base
            if 0 <= offset < PORT_BLOCK:
                found.setdefault(name, set()).add(offset)
            else:
                elsewhere[name] = elsewhere.get(name, 0) + 1
    expected = documented()
    (default,) = [option.default for option in app.commands["metrics"].params if option.name == "port"]
    assert expected.pop("metrics") == {default}
    assert found == expected
    free = re.findall(r"^\| `([\w-]+)` \| [^|]* \| (one|two) free \|", DOCUMENT, re.MULTILINE)
    assert elsewhere == {"metrics": 1, **{process: {"one": 1, "two": 2}[count] for process, count in free}}


@pytest.mark.parametrize("headers", [OTHER_NAME, OTHER_PAGE], ids=["another name", "another page"])
def test_mlflow_refuses_what_another_sites_page_sends(stack: Settings, headers: dict[str, str]) -> None:
    api = f"{stack.tracking_uri}/api/2.0/mlflow/experiments"
    for content in ({"json": {"name": "theirs"}}, {"data": '{"name": "theirs"}'}):
        created = requests.post(f"{api}/create", headers=headers, timeout=30, **content)  # type: ignore[arg-type]
        assert created.status_code == 403
    found = requests.get(f"{api}/get-by-name", params={"experiment_name": "theirs"}, timeout=30)
    assert found.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"


def test_mlflow_shows_nothing_under_another_name(stack: Settings) -> None:
    found = requests.get(
        f"{stack.tracking_uri}/api/2.0/mlflow/experiments/get?experiment_id=0", headers=OTHER_NAME, timeout=30
    )
    assert found.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [BROWSER, OTHER_PAGE, OTHER_NAME, {**OTHER_NAME, "X-XSRF-HEADER": ""}],
    ids=["a browser", "another page", "another name", "another name, with the usual header"],
)
def test_webhdfs_takes_nothing_from_browsers_that_writes_or_deletes(stack: Settings, headers: dict[str, str]) -> None:
    def send(method: str, path: str, op: str, **sent: Any) -> requests.Response:
        url = f"{stack.webhdfs}/webhdfs/v1{path}?op={op}&user.name={stack.hdfs_user}"
        return requests.request(method, url, timeout=30, **sent)

    assert send("PUT", "/kept", "MKDIRS").ok
    for method, path, op in (
        ("PUT", "/theirs", "MKDIRS"),
        ("PUT", "/theirs.txt", "CREATE"),
        ("DELETE", "/kept", "DELETE&recursive=true"),
        ("PUT", "/kept", "RENAME&destination=/theirs"),
    ):
        assert send(method, path, op, headers=headers).status_code == 400, op
    to_datanode = send("PUT", "/theirs.txt", "CREATE", allow_redirects=False).headers["Location"]
    assert requests.put(to_datanode, data=b"theirs", headers=headers, timeout=30).status_code == 400
    listed = send("GET", "/", "LISTSTATUS", headers=headers)
    names = {entry["pathSuffix"] for entry in listed.json()["FileStatuses"]["FileStatus"]}
    assert "kept" in names and not {"theirs", "theirs.txt"} & names


def test_the_header_that_webhdfs_asks_browsers_for_is_on_no_page(stack: Settings) -> None:
    """The daemons' own pages answer under any name, and one shows the configuration."""
    file = (stack.state_dir / "hdfs" / "conf" / "hdfs-site.xml").read_text()
    (header,) = re.findall(r"rest-csrf\.custom-header</name>\s*<value>(\w+)<", file)
    url = f"{stack.webhdfs}/webhdfs/v1/told?op=MKDIRS&user.name={stack.hdfs_user}"
    assert requests.put(url, headers={**BROWSER, header: ""}, timeout=30).ok, "it is what is asked for"
    for port in (stack.ports.namenode_http, stack.ports.datanode_http):
        for path in ("/conf", "/conf?format=json", f"/conf?name={_CSRF_HEADER}", "/jmx", "/stacks"):
            page = requests.get(f"http://127.0.0.1:{port}{path}", headers=OTHER_NAME, timeout=30)
            assert header not in page.text, path
        assert "dfs.webhdfs.rest-csrf.enabled" in requests.get(f"http://127.0.0.1:{port}/conf", timeout=30).text


@pytest.mark.parametrize("path", ["/", "/jobs/", "/environment/", "/static/webui.css", "/api/v1/applications"])
def test_sparks_pages_are_shown_by_the_guard_alone(stack: Settings, path: str) -> None:
    guarded, own = (f"http://127.0.0.1:{port}{path}" for port in (stack.ports.spark_ui, stack.ports.spark_own_ui))
    assert requests.get(guarded, headers=BROWSER, timeout=30).ok
    for headers in (OTHER_NAME, OTHER_PAGE):
        assert requests.get(guarded, headers=headers, timeout=30).status_code == 403
    for headers in (BROWSER, OTHER_NAME, {"Authorization": "Bearer e30.e30.e30"}):
        assert requests.get(own, headers=headers, timeout=30).status_code == 403


def test_the_key_of_sparks_pages_is_on_none_of_them(stack: Settings) -> None:
    (key,) = re.findall(r"secretKey (\S+)", (stack.state_dir / "spark" / "connect.conf").read_text())
    ui = f"http://127.0.0.1:{stack.ports.spark_ui}"
    (application,) = requests.get(f"{ui}/api/v1/applications", timeout=30).json()
    settings = requests.get(f"{ui}/api/v1/applications/{application['id']}/environment", timeout=30).text
    assert "org.apache.spark.ui.JWSFilter" in settings and "secretKey" in settings
    assert key not in settings and key not in requests.get(f"{ui}/environment/", timeout=30).text


def test_nobody_ends_sparks_work_by_its_pages(stack: Settings, tmp_path: Path) -> None:
    """A job that is at work is asked for by pages and by a program, and goes on."""
    ui, asked = f"http://127.0.0.1:{stack.ports.spark_ui}", tmp_path / "asked"

    def slowly(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        import time

        deadline = time.monotonic() + 240
        while not asked.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        yield from batches

    session = open_session(session_config(stack, app_name="who can reach what"))
    try:
        with ThreadPoolExecutor(max_workers=1) as pool, ExitStack() as ending:
            ending.callback(asked.touch)
            rows = pool.submit(session.range(0, 3, 1, 1).mapInPandas(slowly, "id long").collect)
            (app_id,) = [one["id"] for one in requests.get(f"{ui}/api/v1/applications", timeout=30).json()]
            running: list[dict[str, Any]] = []
            while not running:
                assert not rows.done()
                running = requests.get(f"{ui}/api/v1/applications/{app_id}/jobs?status=running", timeout=30).json()
            assert "/kill/" not in requests.get(f"{ui}/jobs/", timeout=30).text
            for headers in (OTHER_NAME, OTHER_PAGE, {}):
                for job in running:
                    paths = [f"/jobs/job/kill/?id={job['jobId']}"]
                    paths += [f"/stages/stage/kill/?id={stage}&terminate=true" for stage in job["stageIds"]]
                    for method in ("GET", "POST"):
                        for path in paths:
                            requests.request(method, ui + path, headers=headers, timeout=30, allow_redirects=False)
            assert not rows.done(), "they were asked while it was at work"
            asked.touch()
            assert [row["id"] for row in rows.result()] == [0, 1, 2]
    finally:
        stop_session(session, remote=stack.remote)
