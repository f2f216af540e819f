"""HDFS that asks who may: what it refuses of an upload is one line with the path, the user and what to do."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import requests

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.hdfs import Hdfs
from genres.store.lake import Lake
from local_stack import hdfs_daemons
from local_stack import stack as stack_module
from local_stack.class_path import HADOOP_LOCK, class_path
from local_stack.java import java_home
from local_stack.stack import up

PATIENCE_S = 0.5


@pytest.fixture
def own(stack: Settings, state_dir: Path, free_port_base: Callable[[], int]) -> Settings:
    """A NameNode and a DataNode with permissions on; the lake's folder belongs to the user who started them."""
    settings = Settings(
        state_dir=state_dir,
        port_base=free_port_base(),
        kafka_bootstrap_servers=stack.bootstrap_servers,
        spark_remote=stack.remote,
        mlflow_tracking_uri=stack.tracking_uri,
    )
    plain = hdfs_daemons.hdfs_site
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(hdfs_daemons, "hdfs_site", lambda of: plain(of) | {"dfs.permissions.enabled": "true"})
        monkeypatch.setattr(stack_module, "_require_able_engine", lambda *_: None)  # it is the session's own
        up(settings, on_progress=lambda line: sys.stderr.write(f"{line}\n"))
    return settings


def test_each_refusal_of_an_upload_is_one_line(own: Settings) -> None:
    put(own, own.hdfs_user)
    assert "refuses CREATE of /genres/_tmp/clips/" in (line := refusal(own, "somebody"))
    assert "for user 'somebody' (Permission denied: user=somebody, access=WRITE" in line
    assert line.endswith(
        "give the user that right (hdfs dfs -chown, -chmod), or fix GENRES_HDFS_USER or GENRES_LAKE_PATH"
    )
    for name, option in (("storagespacequota", "-setSpaceQuota"), ("namespacequota", "-setQuota")):
        with quota(own, name):
            line = refusal(own, own.hdfs_user)
            assert "is full (The " in line and "quota" in line and "/genres/_tmp/" in line
            assert f"for user '{own.hdfs_user}'" in line and option in line
    with safe_mode(own):
        line = refusal(own, own.hdfs_user)
        assert "is not ready: " in line and "afe mode" in line and "/genres/_tmp/" in line
        assert f"for user '{own.hdfs_user}'" in line and "-safemode leave" in line
    put(own, own.hdfs_user)


def put(settings: Settings, user: str, *, patience_s: float = 30.0) -> None:
    files = Hdfs(settings.webhdfs, user=user, patience_s=patience_s)
    lake = Lake(files, hdfs=settings.hdfs, root=settings.lake_path)
    lake.put_clip(lake.path("mine", f"{uuid4().hex}.wav"), b"the bytes of a clip")


def refusal(settings: Settings, user: str) -> str:
    with pytest.raises(GenresError) as said:
        put(settings, user, patience_s=PATIENCE_S)
    line = str(said.value)
    assert line.startswith(f"HDFS at {settings.webhdfs} ")
    assert "\n" not in line and "RemoteException" not in line
    return line


@contextmanager
def quota(settings: Settings, name: str) -> Iterator[None]:
    """Allow the lake no more than it has; the smallest quota there is."""

    def limit(amount: int) -> None:
        requests.put(
            f"{settings.webhdfs}/webhdfs/v1{settings.lake_path}",
            params={"op": "SETQUOTA", "user.name": settings.hdfs_user, name: str(amount)},
            timeout=60,
        ).raise_for_status()

    limit(1)
    yield
    limit(-1)


@contextmanager
def safe_mode(settings: Settings) -> Iterator[None]:
    jars = class_path(HADOOP_LOCK, on_progress=lambda _: None)
    conf = settings.state_dir / "hdfs" / "conf"
    java = [str(java_home() / "bin" / "java"), "-cp", ":".join(map(str, [conf, *jars]))]
    command = [*java, "org.apache.hadoop.hdfs.tools.DFSAdmin", "-safemode"]
    environment = {**os.environ, "HADOOP_USER_NAME": settings.hdfs_user}

    def switch(how: str) -> None:
        subprocess.run([*command, how], env=environment, check=True, capture_output=True, timeout=120)

    switch("enter")
    yield
    switch("leave")
