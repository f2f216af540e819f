"""HDFS from Python, over WebHDFS: fsspec's file system with its silent failures made loud.

Only the transport is here; which paths there are and how they are committed is ``store.lake``'s.
"""

from typing import Any
from urllib.parse import urlsplit

import requests
from fsspec.implementations.webhdfs import WebHDFS
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from genres.errors import GenresError

_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 120
_PASSING = ("SafeModeException", "StandbyException", "RetriableException", "could only be written to 0")


class HdfsUnavailableError(Exception):
    """HDFS answers, but cannot serve yet: safe mode, a standby NameNode, no live DataNode."""


class Hdfs(WebHDFS):
    """fsspec's WebHDFS, with one request a file, checked answers and patience for a daemon that restarts.

    fsspec (2026.9) writes a file as a CREATE and an APPEND, takes the body of a failed read for data, and
    reports nothing when a rename fails or nests into an existing folder.

    Parameters
    ----------
    url
        ``http://host:port`` of the NameNode's WebHDFS.
    user
        User name for simple authentication.
    patience_s
        How long a call is repeated while HDFS is unreachable or not ready, in seconds.

    Raises
    ------
    GenresError
        From every method, when HDFS does not answer within `patience_s`.
    """

    cachable = False

    def __init__(self, url: str, *, user: str, patience_s: float = 30.0) -> None:
        address = urlsplit(url)
        if address.scheme not in {"http", "https"} or not address.hostname or not address.port:
            raise GenresError(
                f"'{url}' is no WebHDFS address: set GENRES_WEBHDFS_URL to http://<namenode>:<port>, such as "
                "http://namenode:9870"
            )
        self.address = url
        self.patience_s = patience_s
        super().__init__(host=address.hostname, port=address.port, user=user, use_https=address.scheme == "https")

    def _connect(self) -> None:
        super()._connect()
        # The user's proxy settings are not for the cluster's own data nodes.
        self.session.trust_env = False
        # Clips are uploaded from several threads; the default pool holds ten connections a host.
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=64)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)
        send = self.session.request
        self.session.request = lambda *a, **k: send(*a, **{"timeout": (_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S), **k})

    def _call(self, op: str, method: str = "get", path: str | None = None, **kwargs: Any) -> requests.Response:
        return self._patiently(lambda: self._call_once(op, method, path, **kwargs))

    def _call_once(self, op: str, method: str, path: str | None, **kwargs: Any) -> requests.Response:
        try:
            return super()._call(op, method, path, **kwargs)
        except (PermissionError, RuntimeError, requests.HTTPError) as error:
            # A NameNode in safe mode answers with the status of a refused permission.
            if any(sign in str(error) for sign in ("Name node is in safe mode", *_PASSING)):
                raise HdfsUnavailableError(str(error).splitlines()[0]) from error
            raise

    def _patiently(self, attempt: Any) -> Any:
        passing = (requests.ConnectionError, requests.Timeout, HdfsUnavailableError)
        try:
            return Retrying(
                retry=retry_if_exception_type(passing),
                stop=stop_after_delay(self.patience_s),
                wait=wait_exponential(multiplier=0.2, max=3),
                reraise=True,
            )(attempt)
        except HdfsUnavailableError as error:
            raise GenresError(f"HDFS at {self.address} is not ready: {error}; see `genres status`") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise GenresError(
                f"HDFS does not answer at {self.address}: start the stack with `genres up`, or mend GENRES_WEBHDFS_URL"
            ) from error

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write a whole file with a single CREATE."""

        def put() -> None:
            target = self._call_once("CREATE", "PUT", path, redirect=False, overwrite="true").headers["Location"]
            answer = self.session.put(target, data=value, headers={"content-type": "application/octet-stream"})
            _raise_unless_ok(answer, path)

        self._patiently(put)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Read a file, or its bytes from `start` to `end`, with a single OPEN."""
        window: dict[str, int] = {}
        if start is not None:
            window["offset"] = start
        if end is not None:
            window["length"] = end - (start or 0)

        def get() -> bytes:
            answer = self._call_once("OPEN", "GET", path, **window)
            _raise_unless_ok(answer, path)
            return answer.content

        return self._patiently(get)

    def rename(self, source: str, target: str) -> None:
        """Rename `source` to `target`, which must not exist; its parent folder is made.

        Raises
        ------
        FileExistsError
            If `target` exists: HDFS would move `source` inside it.
        RuntimeError
            If HDFS refuses the rename.
        """
        if self.exists(target):
            raise FileExistsError(target)
        self.makedirs(self._parent(target), exist_ok=True)
        answer = self._call("RENAME", "PUT", source, destination=target)
        # A repeated request whose first answer was lost is refused, although the rename took place.
        if not answer.json()["boolean"] and (self.exists(source) or not self.exists(target)):
            raise RuntimeError(f"HDFS refused to rename {source} to {target}")


def _raise_unless_ok(answer: requests.Response, path: str) -> None:
    if answer.ok:
        return
    if any(sign in answer.text for sign in _PASSING) or answer.status_code in {502, 503, 504}:
        raise HdfsUnavailableError(f"{path}: {answer.text[:200]}")
    raise OSError(f"{path}: HDFS answered {answer.status_code}: {answer.text[:200]}")
