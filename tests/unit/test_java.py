"""Java: the one that was set is used if it is new enough; otherwise one line says what to install."""

from collections.abc import Iterator
from pathlib import Path

import cjdk
import pytest

from genres.errors import GenresError
from local_stack.java import installed_java, java_home


@pytest.fixture(autouse=True)
def look_again() -> Iterator[None]:
    for function in (java_home, installed_java):
        function.cache_clear()
    yield
    for function in (java_home, installed_java):
        function.cache_clear()


def fake_java(home: Path, version: str) -> None:
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(
        f'#!/bin/sh\necho "Property settings:\n    java.home = {home}/real\nopenjdk version \\"{version}\\"" >&2\n'
    )
    java.chmod(0o755)


def test_java_home_is_what_java_says_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path, "21.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java_home() == tmp_path / "real"


def test_path_is_searched_without_java_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path, "17.0.1")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert java_home() == tmp_path / "real"


@pytest.mark.parametrize("error", [OSError("no route to host"), cjdk.JdkNotFoundError("no such JDK")])
def test_old_java_and_no_download_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fake_java(tmp_path, "11.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))

    def no_network(**_: str) -> Path:
        raise error

    monkeypatch.setattr(cjdk, "java_home", no_network)
    with pytest.raises(GenresError) as missing:
        java_home()
    message = str(missing.value)
    assert "\n" not in message
    assert "no Java 17 or newer" in message and str(error) in message
    assert "openjdk-17-jre-headless" in message and "JAVA_HOME" in message
