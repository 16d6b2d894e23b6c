"""The fake in process: a Transport that never opens a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from ai_proxy_mw._errors import UpstreamDisconnected, UpstreamTimeout
from ai_proxy_mw._http import Body, Response
from ai_proxy_mw.testing._exchange import BrokenOff, Exchange, Open

if TYPE_CHECKING:
    from ai_proxy_mw._config import Timeouts
    from ai_proxy_mw.upstream.base import Outbound

T = TypeVar("T")


class FakeTransport:
    """Answers as the fake does; its faults are the errors that a transport raises.

    It holds nothing between calls, so it may be used from several event loops, and after
    `aclose` too.
    """

    def __init__(self, open_exchange: Open) -> None:
        self._open = open_exchange

    async def send(self, outbound: Outbound) -> Response:
        exchange = self._open(outbound.method, outbound.target, list(outbound.headers), 0)
        try:
            return await self._answer(exchange, outbound)
        except BrokenOff:
            exchange.end("failed")
            raise UpstreamDisconnected from None
        except BaseException:
            # Whatever else stops a call from this side is a client that leaves.
            exchange.end("disconnected")
            raise

    async def aclose(self) -> None:
        """Nothing to close."""

    async def _answer(self, exchange: Exchange, outbound: Outbound) -> Response:
        timeouts = outbound.timeouts
        clock = _Clock(timeouts)
        if exchange.disconnects:
            raise BrokenOff
        if exchange.stalls:
            await clock.within(_forever(), timeouts.write, "write")
        if isinstance(outbound.body, bytes):
            exchange.feed(outbound.body)
        else:
            async for piece in outbound.body:
                exchange.feed(piece)
        exchange.finish()
        answer = exchange.answer
        whole = exchange.at_once
        if whole is not None:
            exchange.sent_at_once()
            return Response(answer.status, answer.headers, whole)
        await clock.within(exchange.head(), timeouts.first_byte, "first_byte")
        return Response(answer.status, answer.headers, _FakeBody(exchange, clock))


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


class _Clock:
    """Bounds each wait, and all of them together, as a transport does."""

    def __init__(self, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self._end = asyncio.get_running_loop().time() + timeouts.total

    async def within(self, work: Awaitable[T], seconds: float, what: str) -> T:
        left = self._end - asyncio.get_running_loop().time()
        if left < seconds:
            seconds, what = left, "total"
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise UpstreamTimeout(what) from None


class _FakeBody(Body):
    """An answer's body as it is played; closing it early is a client that leaves."""

    def __init__(self, exchange: Exchange, clock: _Clock) -> None:
        self._exchange = exchange
        self._clock = clock
        self._ended = False
        self._first: bytes | None = None

    @property
    def ended(self) -> bool:
        return self._ended and self._first is None

    async def ready(self) -> None:
        if self._first is None:
            try:
                self._first = await self._next()
            except StopAsyncIteration:
                pass  # and it is said again to who reads

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._next()

    async def _next(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            piece = await self._clock.within(
                self._exchange.piece(), self._clock.timeouts.idle, "idle"
            )
        except BrokenOff:
            self._ended = True
            self._exchange.end("failed")
            raise UpstreamDisconnected from None
        except BaseException:
            await self.aclose()
            raise
        self._ended = self._exchange.exhausted
        if piece is None:
            self._exchange.end("complete")
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self._first = None
        self._ended = True
        self._exchange.end("disconnected")
