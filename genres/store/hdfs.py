"""HDFS from Python, over WebHDFS: fsspec's file system with its silent failures made loud.

Only the transport is here; which paths there are and how they are committed is ``genres.store.lake``'s.
"""

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import requests
from fsspec.implementations.webhdfs import WebHDFile, WebHDFS

from genres.addresses import without_secrets
from genres.certificates import https_refusal, trusted
from genres.errors import GenresError
from genres.file_names import display_name
from genres.retrying import retried
from genres.store.hdfs_access import ANSWER_S

_CONNECT_TIMEOUT_S = 5
_READ_BYTES = 2**20
# What a daemon answers while it, or one that it asks, restarts: the remote exception's name ...
_PASSING = {
    *("SafeModeException", "RetriableException", "StandbyException", "BlockMissingException"),
    # A DataNode's own connection to a NameNode that is gone, or not there yet.
    *("EOFException", "ConnectException", "SocketException", "SocketTimeoutException", "ConnectTimeoutException"),
}
# ... or, where it is only an IOException, its message.
_NO_ROOM = "could only be written to 0"
_PASSING_MESSAGES = (_NO_ROOM, "Failed to find datanode")
# Of a quota of space or of names. It passes as well, but not by waiting for seconds.
_FULL = "QuotaExceededException"
_DENIED = {"AccessControlException", "SecurityException"}
_SAFE_MODE = "safe mode"
# A web server, a proxy or a wrong port knows of no file: only WebHDFS's own exception says that one is gone.
_NOT_WEBHDFS = "404 in other words than WebHDFS's"
_NO_ANSWER = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)

_Answer = TypeVar("_Answer")


class HdfsUnavailableError(Exception):
    """HDFS answers, but cannot serve yet: safe mode, a standby NameNode, no live DataNode."""


class HdfsFullError(GenresError):
    """A quota of HDFS is used up."""


class HdfsDeniedError(GenresError):
    """HDFS does not let the user do that."""


class Hdfs(WebHDFS):
    """fsspec's WebHDFS, with one request a file, checked answers and patience for a daemon that restarts.

    fsspec (2026.9) writes a file as a CREATE and an APPEND, takes the body of a failed read for data, takes
    every error for a missing file when it is asked whether there is one, and reports nothing when a rename fails
    or nests into an existing folder.

    Parameters
    ----------
    url
        ``http://host:port`` of the NameNode's WebHDFS.
    user
        User name for simple authentication.
    patience_s
        How long a call is repeated while HDFS is unreachable or not ready, in seconds.
    answer_s
        How long each answer may take that is not about a file's bytes, in seconds: one that accepts connections and is
        silent is waited for as long. What reads or writes bytes has two minutes, of silence or after the last byte.
    ca_file
        PEM file of the authorities that sign the certificates behind ``https://``; None for those that certifi lists.

    Raises
    ------
    GenresError
        From every method, when HDFS does not answer within these times, is full, or refuses the user; at once where
        TLS fails in a way that does not pass.
    """

    cachable = False

    def __init__(
        self, url: str, *, user: str, patience_s: float, answer_s: float = ANSWER_S, ca_file: Path | None = None
    ) -> None:
        address = urlsplit(url)
        if address.scheme not in {"http", "https"} or not address.hostname or not _port(address):
            raise GenresError(
                f"'{without_secrets(url)}' is no WebHDFS address: set GENRES_WEBHDFS_URL to http://<namenode>:<port>, "
                "such as http://namenode:9870"
            )
        self.address = url
        self.patience_s = patience_s
        self.answer_s = answer_s
        self.ca_file = ca_file
        super().__init__(
            host=address.hostname,
            port=address.port,
            user=user,
            use_https=address.scheme == "https",
            session_verify=trusted(ca_file),
        )

    def _connect(self) -> None:
        super()._connect()
        # The user's proxy settings are not for the cluster's own data nodes.
        self.session.trust_env = False
        # Clips are uploaded from several threads; the default pool holds ten connections a host.
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=64)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)
        # fsspec hands on an answer's message, but not the exception's name; and of what a DataNode answers, nothing.
        self.session.hooks["response"].append(self._raise_if_known)
        send = self.session.request

        def request(*arguments: Any, **options: Any) -> requests.Response:
            # What a file holds is left to `cat_file`: requests itself would read it ten kilobytes at a time.
            is_open = options.get("params", {}).get("op") == "OPEN"
            answer_s = ANSWER_S if is_open or options.get("data") is not None else self.answer_s
            defaults = {"timeout": (_CONNECT_TIMEOUT_S, answer_s), "stream": is_open}
            return send(*arguments, **{**defaults, **options})

        self.session.request = request

    def close(self) -> None:
        """Close the connections that are kept alive; the next call opens new ones."""
        self.session.close()

    def _raise_if_known(self, answer: requests.Response, *_: Any, **__: Any) -> None:
        """Raise an error that says what to do: for a refusal, a quota, and what ends when the daemons are up again."""
        if answer.ok:
            return
        name, message = _remote_exception(answer)
        url = urlsplit(answer.url)
        what = f"{display_name(unquote(url.path).rpartition('/webhdfs/v1')[2])} for user '{self.user}'"
        if not name:  # not WebHDFS's answer: the web server's, or a proxy's before it
            if answer.status_code == requests.codes.not_found:
                raise HdfsUnavailableError(f"{_NOT_WEBHDFS} ({what})")
            if answer.status_code >= 500:
                raise HdfsUnavailableError(f"{answer.status_code} {answer.reason}")
        elif name in _DENIED:
            op = parse_qs(url.query).get("op", ["that"])[0]
            raise HdfsDeniedError(
                f"HDFS at {self.address} refuses {op} of {what} ({message}): give the user that right "
                "(hdfs dfs -chown, -chmod), or fix GENRES_HDFS_USER or GENRES_LAKE_PATH"
            )
        elif name.endswith(_FULL):
            raise HdfsFullError(
                f"HDFS at {self.address} is full ({message}), so that it does not take {what}: make room, or raise the "
                "quota (hdfs dfsadmin -setSpaceQuota, -setQuota), and what waits goes on"
            )
        elif name in _PASSING or any(sign in message for sign in _PASSING_MESSAGES):
            raise HdfsUnavailableError(f"{message} ({what})")

    def _call(self, op: str, method: str = "get", path: str | None = None, **kwargs: Any) -> requests.Response:
        return self.patiently(lambda: self._call_once(op, method, path, **kwargs))

    def _call_once(self, op: str, method: str, path: str | None, **kwargs: Any) -> requests.Response:
        # For nested functions too, in which super() says nothing.
        return super()._call(op, method, path, **kwargs)

    def patiently(self, attempt: Callable[[], _Answer]) -> _Answer:
        """Return the result of `attempt`, which is repeated while it fails in ways that pass."""

        def unless_refused() -> _Answer:
            try:
                return attempt()
            except requests.exceptions.SSLError as error:
                if refusal := https_refusal(error, self.ca_file):
                    raise GenresError(f"HDFS at {self.address} is not used: {refusal}") from error
                raise

        try:
            return retried(unless_refused, on=(*_NO_ANSWER, HdfsUnavailableError), patience_s=self.patience_s)
        except HdfsUnavailableError as error:
            hint = ""
            if _NO_ROOM in str(error):
                hint = "its DataNodes are full or away, "
            elif _SAFE_MODE in str(error).lower():
                hint = "it ends when enough DataNodes have reported, or by hdfs dfsadmin -safemode leave; "
            elif _NOT_WEBHDFS in str(error):
                hint = "fix GENRES_WEBHDFS_URL, or the proxy that it names; "
            raise GenresError(f"HDFS at {self.address} is not ready: {error}; {hint}see `genres status`") from error
        except _NO_ANSWER as error:
            raise GenresError(
                f"HDFS does not answer at {self.address}: start the stack with `genres up`, or fix GENRES_WEBHDFS_URL"
            ) from error

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write a whole file with a single CREATE."""
        self._create(path, lambda: value)

    def put_open_file(self, path: str, content: IO[bytes]) -> None:
        """Write a whole file from a local one, which is sent piece by piece and never held in memory."""

        def from_its_beginning() -> IO[bytes]:
            content.seek(0)
            return content

        self._create(path, from_its_beginning)

    def _create(self, path: str, content: Callable[[], bytes | IO[bytes]]) -> None:
        def put() -> None:
            target = self._call_once("CREATE", "PUT", path, redirect=False, overwrite="true").headers["Location"]
            answer = self.session.put(target, data=content(), headers={"content-type": "application/octet-stream"})
            _raise_unless_ok(answer, path)

        self.patiently(put)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Read a file, or its bytes from `start` to `end`, with a single OPEN.

        Raises
        ------
        FileNotFoundError
            If WebHDFS says that there is no such file; a 404 of anybody else's says nothing of it.
        """
        window: dict[str, int] = {}
        if start is not None:
            window["offset"] = start
        if end is not None:
            window["length"] = end - (start or 0)

        def get() -> bytes:
            with self._call_once("OPEN", "GET", path, **window) as answer:
                return b"".join(answer.iter_content(_READ_BYTES))

        return self.patiently(get)

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Return whether there is a file or folder at `path`."""
        return self._type(path) is not None

    def isfile(self, path: str) -> bool:
        """Return whether there is a file at `path`."""
        return self._type(path) == "file"

    def isdir(self, path: str) -> bool:
        """Return whether there is a folder at `path`."""
        return self._type(path) == "directory"

    def _type(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return None

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> WebHDFile:
        if mode != "rb":
            raise NotImplementedError("files are written whole, with pipe_file")
        return _CheckedFile(self, path, mode=mode, tempdir=self.tempdir, autocommit=True)

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


class _CheckedFile(WebHDFile):
    """A file opened for reading whose ranges are checked and read again when a daemon dies meanwhile."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        start, end = max(start, 0), min(end, self.size)
        if start >= end:
            return b""

        def read() -> bytes:
            data: bytes = self.fs.cat_file(self.path, start, end)
            if len(data) != end - start:
                raise HdfsUnavailableError(f"{self.path}: {len(data)} bytes came instead of {end - start}")
            return data

        return self.fs.patiently(read)


def _port(address: SplitResult) -> int | None:
    try:
        return address.port
    except ValueError:  # no number, or none that a port can have
        return None


def _raise_unless_ok(answer: requests.Response, path: str) -> None:
    if not answer.ok:
        name, message = _remote_exception(answer)
        why = f"{name}: {message}" if name else " ".join(answer.text[:200].split())
        raise OSError(f"{path}: HDFS answered {answer.status_code} ({why})")


def _remote_exception(answer: requests.Response) -> tuple[str, str]:
    """Return the name and the first line of the exception that WebHDFS answers with; empty texts if it is no such."""
    try:
        remote = answer.json()["RemoteException"]
        return str(remote["exception"]), (str(remote["message"]).splitlines() or [""])[0]
    except (ValueError, KeyError, TypeError):
        return "", ""
