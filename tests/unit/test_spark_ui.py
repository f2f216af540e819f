"""Spark's pages as the guard shows them: whole, to who may look, and with the token that Spark asks for."""

import gzip
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import jwt
import pytest
from starlette.testclient import TestClient

from genres.settings import Settings
from local_stack.spark_server import spark_programs
from local_stack.spark_ui import TOKEN_VARIABLE, build_app
from tests.http_server import served

PAGE = gzip.compress(b"<html>jobs</html>")
GUARD = "http://127.0.0.1:18040"


class Behind(BaseHTTPRequestHandler):
    """Stands in for Spark's own pages, and says what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str, dict[str, str]]]

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.path == "/broken-off/":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n<html>\r\n")
            self.close_connection = True
            return
        if self.path == "/":
            self.send_response(302)
            self.send_header("Location", f"http://{self.headers['Host']}/jobs/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        compressed = "gzip" in self.headers.get("Accept-Encoding", "")
        self.send_response(200)
        self.send_header("X-Frame-Options", "SAMEORIGIN")
        self.send_header("Set-Cookie", "one=browsers")
        if compressed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "GET":
            body = PAGE if compressed else gzip.decompress(PAGE)
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    do_HEAD = do_GET  # noqa: N815 - as its base class calls it


@pytest.fixture
def behind() -> Iterator[str]:
    Behind.asked = []
    with served(Behind) as url:
        yield url


@pytest.fixture
def browser(behind: str) -> Iterator[TestClient]:
    with TestClient(build_app(behind, "the-token"), base_url=GUARD, follow_redirects=False) as client:
        yield client


def test_a_page_comes_whole_and_the_token_from_the_guard(browser: TestClient) -> None:
    answer = browser.get(
        "/jobs/%C3%A4/?id=1&q=a%20b%26", headers={"Authorization": "Bearer mine", "Accept": "text/html"}
    )
    assert answer.text == "<html>jobs</html>" and answer.headers["x-frame-options"] == "SAMEORIGIN"
    method, path, headers = Behind.asked[0]
    assert (method, path) == ("GET", "/jobs/%C3%A4/?id=1&q=a%20b%26")
    assert headers["authorization"] == "Bearer the-token"
    assert headers["accept"] == "text/html"
    assert answer.headers["content-encoding"] == "gzip", "as it came"
    assert "transfer-encoding" not in answer.headers


def test_nothing_is_compressed_for_who_did_not_ask_for_it(browser: TestClient) -> None:
    answer = browser.get("/jobs/", headers={"Accept-Encoding": "identity"})
    assert answer.text == "<html>jobs</html>" and "content-encoding" not in answer.headers


def test_a_page_that_breaks_off_is_not_taken_for_a_whole_one(browser: TestClient) -> None:
    """Spark breaks off the pages that were asked for in the moment in which it has started."""
    with pytest.raises(httpx.RemoteProtocolError):
        browser.get("/broken-off/")


def test_redirects_stay_before_the_guard(browser: TestClient) -> None:
    assert browser.get("/").headers["location"] == f"{GUARD}/jobs/"


def test_a_cookie_of_one_browser_is_not_sent_for_another(browser: TestClient) -> None:
    browser.get("/jobs/")
    browser.cookies.clear()
    browser.get("/jobs/")
    assert [headers.get("cookie") for _, _, headers in Behind.asked] == [None, None]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("HEAD", {}, 200),
        ("POST", {}, 405),
        ("DELETE", {}, 405),
        ("GET", {"Host": "music.example"}, 403),
        ("GET", {"Origin": "https://music.example"}, 403),
        ("HEAD", {"Host": "music.example:18040"}, 403),
    ],
)
def test_looking_is_all_and_under_this_machines_names_alone(
    browser: TestClient, method: str, headers: dict[str, str], status: int
) -> None:
    assert browser.request(method, "/jobs/", headers=headers).status_code == status
    assert len(Behind.asked) == (1 if status == 200 else 0)


def test_spark_that_does_not_answer_is_said() -> None:
    with TestClient(build_app("http://127.0.0.1:1", "the-token"), base_url=GUARD) as client:
        answer = client.get("/jobs/")
    assert answer.status_code == 502
    assert answer.text.startswith("Spark's own pages do not answer at http://127.0.0.1:1: ")


def test_the_token_is_signed_by_the_key_that_spark_has_and_stays(tmp_path: Path) -> None:
    def started() -> tuple[str, str]:
        connect, pages = spark_programs(Settings(state_dir=tmp_path), tmp_path)
        ((file, text),) = connect.files.items()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        conf = dict(line.split(" ", 1) for line in text.splitlines())
        assert conf["spark.ui.filters"] == "org.apache.spark.ui.JWSFilter"
        assert not any("secretKey" in word for word in [*connect.command, *pages.command]), "everybody may read those"
        return conf["spark.org.apache.spark.ui.JWSFilter.param.secretKey"], pages.environment[TOKEN_VARIABLE]

    key, token = started()
    assert jwt.decode(token, jwt.utils.base64url_decode(key), algorithms=["HS256"])
    assert started() == (key, token), "another one would start Spark again"
