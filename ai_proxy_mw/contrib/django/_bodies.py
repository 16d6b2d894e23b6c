"""The caller's body, of which Django or a middleware may have read something already."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

from django.http import HttpRequest
from django.http.request import RawPostDataException

if TYPE_CHECKING:
    from django.core.handlers.asgi import ASGIRequest
    from django.core.handlers.wsgi import WSGIRequest

    from ai_proxy_mw._types import Message, Receive

READ_SIZE = 64 * 1024


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class BodyGoneError(RuntimeError):
    """A middleware has read the body as it came, and nobody has kept it."""

    def __init__(self) -> None:
        super().__init__(
            "a middleware has read the caller's upload (request.POST, request.FILES or "
            "request.read) before the proxy could: place it behind ProxyMiddleware"
        )


def whole_environ(request: WSGIRequest) -> dict[str, Any]:
    """The request's environment, with an input that has all of the body. Raises BodyGoneError."""
    environ: dict[str, Any] = request.environ
    # Without a Content-Length Django reads nothing, so that all of it is still there.
    body = _kept(request)
    return {**environ, "wsgi.input": BytesIO(body)} if body else environ


def source(request: ASGIRequest) -> Source:
    """Where to read all of the body, which Django has in a file. Raises BodyGoneError."""
    body = _kept(request)
    return request if body is None else BytesIO(body)


def receiver(body: Source) -> Receive:
    """An ASGI `receive` that gives a body which has come already, a piece at a time."""
    more = True

    async def receive() -> Message:
        nonlocal more
        if not more:
            await asyncio.Event().wait()  # for ever: a leaving ends the task instead
        try:
            chunk = body.read(READ_SIZE)
        except ValueError:  # Django closes its file when the caller has left
            return {"type": "http.disconnect"}
        more = len(chunk) == READ_SIZE
        return {"type": "http.request", "body": chunk, "more_body": more}

    return receive


def _kept(request: HttpRequest) -> bytes | None:
    """The body if somebody has read it already, else None."""
    if not request._read_started:  # type: ignore[attr-defined]  # noqa: SLF001 - the only sign
        return None
    try:
        return request.body
    except RawPostDataException:
        raise BodyGoneError from None
