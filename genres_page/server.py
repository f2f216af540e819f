"""The page's server: Gradio and the plain HTTP answer behind one guard, on 127.0.0.1."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from genres.audio.gate import max_clip_bytes
from genres.audio.rejections import RejectedAudio
from genres.errors import GenresError
from genres.own_pages import OwnPagesOnly
from genres.settings import Settings
from genres_page import views
from genres_page.answers import Answerer
from genres_page.page import Page

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio's own scripts stand in the page, and build others there.
_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data: blob:; media-src 'self' data: blob:; worker-src 'self' blob:; font-src 'self' data:; "
    b"connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""What a browser lets the page load: nothing from elsewhere, whatever a name or a library asks for."""

_CLOSE_S = 8.0
"""How long an answer may take that is under way when the page ends, in seconds: `genres ui` waits for ten."""
_FORM_BYTES = 2**16
"""What a form may have besides the clip: its boundaries and the clip's name."""
_NO_CLIP = (
    "there is no form with a clip in what was sent: send the clip as the form's file `file`, as "
    "`curl -F file=@clip.wav` does"
)


class _NothingFromElsewhere:
    """ASGI middleware that sends the policy with every answer."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        async def with_policy(message: "Message") -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            await send(message)

        await self._app(scope, receive, with_policy)


class _AnswersNoMoreThan:
    """ASGI middleware that refuses a larger form of ``POST /answer`` before it is read, or where it grows too large.

    FastAPI would keep all of it in a temporary file, and its own limit says neither what is too large nor how large
    it may be.
    """

    def __init__(self, app: "ASGIApp", most_bytes: int) -> None:
        self._app = app
        self._most = most_bytes + _FORM_BYTES
        self._line = f"the clip is too large: at most {most_bytes:,} bytes are read, whatever its format"

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.datastructures import Headers
        from starlette.requests import ClientDisconnect
        from starlette.responses import JSONResponse

        if scope["type"] != "http" or scope["path"] != "/answer":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "")
        is_refused, received = told.isdecimal() and int(told) > self._most, 0

        async def counted() -> "Message":
            nonlocal is_refused, received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most:
                is_refused = True
                raise ClientDisconnect  # what reads gives up, and frees what it has
            return message

        async def unless_refused(message: "Message") -> None:
            if not is_refused:
                await send(message)

        if not is_refused:
            await self._app(scope, counted, unless_refused)
        if is_refused:
            await JSONResponse({"error": self._line}, status_code=413)(scope, receive, send)


def build_app(settings: Settings, answerer: Answerer) -> "FastAPI":
    """Build the application: the page at ``/``, and ``POST /answer`` with a clip as the form's ``file``."""
    import gradio as gr
    from fastapi import FastAPI, UploadFile
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    app = FastAPI(title="genres", docs_url=None, redoc_url=None, openapi_url=None)
    most_bytes = max_clip_bytes(settings.max_clip_s)
    app.add_middleware(_AnswersNoMoreThan, most_bytes=most_bytes)
    app.add_middleware(_NothingFromElsewhere)
    app.add_middleware(OwnPagesOnly)

    # FastAPI reads the annotations where the function is; the names of this one's are local.
    async def answer(file: Any, dataset: str = "") -> JSONResponse:
        from starlette.concurrency import run_in_threadpool

        data = await file.read()
        try:
            found = await run_in_threadpool(answerer.answer, data, file_name=file.filename or "", dataset=dataset)
        except RejectedAudio as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        except GenresError as error:
            return JSONResponse({"error": str(error)}, status_code=503)
        return JSONResponse(found)

    async def without_clip(_request: object, error: Exception) -> JSONResponse:
        """Say in our form what FastAPI and Starlette say in theirs; of all that lacks a clip the same."""
        status = error.status_code if isinstance(error, HTTPException) else 422
        return JSONResponse({"error": _NO_CLIP}, status_code=status)

    answer.__annotations__["file"] = UploadFile
    app.post("/answer")(answer)
    for kind in (RequestValidationError, HTTPException):  # Gradio, which is mounted, answers its own
        app.add_exception_handler(kind, without_clip)
    blocks = views.build(Page(settings, answerer))
    # Gradio (6.31) sees whether a file that is named was uploaded only where it has launched by itself: else whoever
    # asks names any file of this user's, has it answered, and copied to where it is served from.
    blocks.has_launched = True
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        max_file_size=most_bytes,
        theme=views.theme(),
        css=views.css(),
        show_error=True,
        footer_links=["api"],
    )


@contextlib.contextmanager
def keeping_nothing() -> Iterator[None]:
    """Have Gradio put what is dropped and played into a folder that goes with the page, and no answers in the browser.

    Its own choice is one folder for all users and applications of a machine.
    """
    with tempfile.TemporaryDirectory(prefix="genres-page-") as folder:
        os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_RUN_HISTORY="false")
        yield


def serve(settings: Settings, port: int) -> None:
    """Serve until interrupted or terminated.

    Raises
    ------
    GenresError
        If the port is taken.
    """
    import signal
    import socket

    import uvicorn

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        raise GenresError(f"port {port} cannot be had ({error.strerror}): name another one by --port") from error
    # Once it has closed, uvicorn raises the signal again that it ended on: this one would leave the rest as it is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answerer = Answerer(settings)
    answerer.warm_up()
    try:
        with keeping_nothing():
            # A page that is open somewhere asks for news without end.
            config = uvicorn.Config(build_app(settings, answerer), log_level="warning", timeout_graceful_shutdown=2)
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        if not answerer.close(timeout_s=_CLOSE_S):
            # Of a Spark that has gone the client asks for a quarter of an hour, and Python waits for its threads.
            os._exit(1)
