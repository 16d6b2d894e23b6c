"""What the tests of the transports share."""

from __future__ import annotations

import asyncio
import functools
import importlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import ExitStack, asynccontextmanager
from typing import Any, ParamSpec

import pytest

from ai_proxy_mw._config import Timeouts
from ai_proxy_mw._http import Response
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw._types import RawHeaders
from ai_proxy_mw.upstream.base import Origin, Outbound, Transport
from ai_proxy_mw.upstream.httpx import HttpxTransport
from ai_proxy_mw.upstream.native import NativeTransport
from tests.transport._raw_server import RawServer

KINDS = ("native", "httpx", "httpx2")
every_kind = pytest.mark.parametrize("kind", KINDS)

P = ParamSpec("P")

_NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@asynccontextmanager
async def transport(
    kind: str,
    *,
    max_connections: int = 1000,
    keepalive: float = 4.0,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Transport]:
    """One of the transports, closed at the end."""
    trust = ssl_context or _NO_TRUST
    if kind == "native":
        native = NativeTransport(
            max_connections=max_connections, keepalive=keepalive, ssl_context=trust
        )
        try:
            yield native
        finally:
            await native.aclose()
            assert native.open_connections == 0
        return
    library = importlib.import_module(kind)
    limits = library.Limits(
        max_connections=None if max_connections == 1000 else max_connections,
        max_keepalive_connections=None,
        keepalive_expiry=keepalive,
    )
    async with library.AsyncClient(verify=trust, limits=limits, trust_env=False) as client:
        yield HttpxTransport(client)


def in_loop(
    test: Callable[P, Coroutine[Any, Any, None]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    within: float = 30.0,
) -> Callable[P, None]:
    """Make a plain test of a coroutine function.

    It fails on what only the event loop would hear of (an exception that nobody fetched), and on
    tasks that are left over.
    """

    @functools.wraps(test)
    def plain(*args: P.args, **kwargs: P.kwargs) -> None:
        unheard: list[dict[str, Any]] = []

        async def guarded() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, told: unheard.append(told))
            async with asyncio.timeout(within):
                await test(*args, **kwargs)
            await until(lambda: len(asyncio.all_tasks()) == 1)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(guarded())
        assert not unheard, unheard

    return plain


async def until(holds: Callable[[], bool], *, within: float = 5.0) -> None:
    """Wait for a condition; fails when it does not come about in that many seconds."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + within
    while not holds():
        assert clock() < deadline, "it did not come about"
        await asyncio.sleep(0.002)


def outbound(
    to: RawServer | Origin,
    *,
    method: str = "POST",
    target: bytes = b"/v1/chat/completions",
    headers: RawHeaders | None = None,
    body: bytes | RequestBody = b"",
    **timeouts: float,
) -> Outbound:
    """A request; the keywords left over are of `Timeouts`."""
    return Outbound(
        method=method,
        origin=to if isinstance(to, Origin) else to.origin,
        target=target,
        headers=[(b"host", b"upstream.test"), *(headers or [])],
        body=body,
        timeouts=Timeouts(**timeouts),
    )


def get(to: RawServer | Origin, **rest: Any) -> Outbound:
    return outbound(to, method="GET", target=b"/v1/models", **rest)


async def read(response: Response) -> bytes:
    """All of the body."""
    return b"".join([piece async for piece in response.body])


async def collect(response: Response, into: bytearray) -> None:
    """The same, keeping what came before an error."""
    async for piece in response.body:
        into += piece


def at_end(response: Response) -> bool:
    return response.body.ended


async def fetch(by: Transport, request: Outbound) -> tuple[Response, bytes]:
    """Send and read to the end."""
    response = await by.send(request)
    return response, await read(response)


def upload(
    pieces: Iterable[bytes | BaseException], *, declared: int | None = None, patience: float = 30.0
) -> RequestBody:
    """A body that comes in those pieces; an exception among them is raised in its place."""
    queue = iter([*pieces, None])

    async def pull() -> tuple[bytes, bool]:
        await asyncio.sleep(0)
        piece = next(queue)
        if isinstance(piece, BaseException):
            raise piece
        return (b"", True) if piece is None else (piece, False)

    return RequestBody(pull, declared=declared, limit=1 << 40, patience=patience)


def deaf_port(stack: ExitStack) -> int:
    """A port that never answers: its backlog is full."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port: int = listener.getsockname()[1]
    for _ in range(4):
        filler = stack.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
    return port


def by_kind(kind: str, *, native: Any, library: Any, why: str) -> Any:
    """An expectation that differs because the library leaves no choice; `why` is for the reader."""
    assert why
    return native if kind == "native" else library
