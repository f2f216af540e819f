"""The guard before our pages: only this machine's own names, and only what pages of the same address ask for.

Dagster runs a mutation that comes by a plain GET, from a page of any origin and under any host name, so that every
page in the browser could launch runs as long as Dagster is open.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
"""The names under which the pages are served; under any other one, some site made its own name lead here."""

_DEFAULT = {"http": 80, "https": 443}
"""Ports that an address leaves out."""


class OwnPagesOnly:
    """ASGI middleware that refuses what another site's page may have sent.

    Refused are a ``Host`` or an ``Origin`` that is not one of the names, an ``Origin`` of another port, where another
    server of this machine is, and GraphQL in an address, which a link or a picture can hold: no page of Dagster's asks
    that way. Websockets are looked at, too.

    Parameters
    ----------
    app
        What answers the rest.
    hosts
        The names.
    """

    def __init__(self, app: "ASGIApp", hosts: Iterable[str] = HOSTS) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer with 403, or hand on."""
        if scope["type"] not in ("http", "websocket"):  # start and end of the server
            await self._app(scope, receive, send)
            return
        if why := self._objection(scope):
            await _refuse(scope, receive, send, why)
            return
        await self._app(scope, receive, send)

    def _objection(self, scope: "Scope") -> str:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, port = _place(f"//{headers.get(b'host', '')}")
        if host not in self._hosts:
            return f"nothing is at home under the name {host!r}: open http://127.0.0.1:<port>"
        origin = headers.get(b"origin")
        if origin is not None and not self._is_ours(origin, port):
            return f"a page of {origin} asked for this: only pages of the same address are answered"
        if scope["type"] == "http" and "query" in parse_qs(scope["query_string"].decode("latin-1")):
            return "a GraphQL query in an address is not answered: send it with POST"
        return ""

    def _is_ours(self, origin: str, port: int | None) -> bool:
        """Whether a page is of the port that is asked; behind TLS the browser leaves out another one than here."""
        host, of_page = _place(origin)
        return host in self._hosts and (of_page or _DEFAULT.get(origin.partition(":")[0])) in (
            {port} if port else set(_DEFAULT.values())
        )


def _place(address: str) -> tuple[str, int | None]:
    """Return host name and port; an empty name for what is no address."""
    try:
        parts = urlsplit(address)
        return parts.hostname or "", parts.port
    except ValueError:
        return "", None


async def _refuse(scope: "Scope", receive: "Receive", send: "Send", why: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        closed: dict[str, Any] = {"type": "websocket.close", "code": 1008, "reason": why}
        await send(closed)
        return
    from starlette.responses import PlainTextResponse

    await PlainTextResponse(why, status_code=403)(scope, receive, send)
