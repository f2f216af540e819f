"""Spark's pages, behind the guard: ``python -m local_stack.spark_ui PORT BEHIND``.

Spark answers under any host name, so that a site whose own name leads to this machine could read its pages (DNS
rebinding). It answers nobody here but who shows the stack's token, and that is this process, which adds it to what
`genres.own_pages` lets through.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

TOKEN_VARIABLE = "SPARK_UI_TOKEN"  # noqa: S105 - a name
"""The variable that holds the token."""

_CONNECT_S, _READ_S = 2, 60
_HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"),
    "upgrade",
}
"""Headers that concern one connection alone (RFC 9110, 7.6.1)."""


def build_app(behind: str, token: str) -> "Starlette":
    """Return the application.

    Parameters
    ----------
    behind
        Where Spark's own pages are, ``http://host:port``.
    token
        What Spark's ``JWSFilter`` takes: a signed JSON web token.
    """
    import httpx
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    from genres.own_pages import OwnPagesOnly

    # No proxy that the user's environment names, and no cookies of one browser for another.
    client = httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S))

    async def forward(request: "Request") -> "Response":
        # The browser's Host stays: Spark's redirects name it.
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        headers["authorization"] = f"Bearer {token}"
        address = str(request.url.replace(scheme="http", netloc=urlsplit(behind).netloc))
        try:
            # The client's own way of building a request would ask for compression that the browser may not know.
            answer = await client.send(httpx.Request(request.method, address, headers=headers), stream=True)
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            return PlainTextResponse(f"Spark's own pages do not answer at {behind}: {why}", status_code=502)
        return StreamingResponse(
            answer.aiter_raw(),
            status_code=answer.status_code,
            headers={name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP},
            background=BackgroundTask(answer.aclose),
        )

    @asynccontextmanager
    async def closing(_: "Starlette") -> AsyncIterator[None]:
        async with client:
            yield

    # Looking is all that there is: ending jobs is switched off.
    routes = [Route("/{path:path}", forward, methods=["GET", "HEAD"])]
    return Starlette(routes=routes, middleware=[Middleware(OwnPagesOnly)], lifespan=closing)


@click.command()
@click.argument("port", type=int)
@click.argument("behind")
# By environment alone: everybody on the machine may read a command line.
@click.option("--token", envvar=TOKEN_VARIABLE, required=True, help="What Spark's JWSFilter takes.")
def main(port: int, behind: str, token: str) -> None:
    """Show, on PORT of 127.0.0.1, Spark's pages at BEHIND."""
    import uvicorn

    app = build_app(behind, token)
    # Spark's own headers stand, its date among them.
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, server_header=False, date_header=False)


if __name__ == "__main__":
    main()
