"""A call under way with a clock in the hand."""

from __future__ import annotations

import asyncio
from typing import Any

from ai_proxy_mw._delivery import Truncated, deliver
from ai_proxy_mw._errors import ClientGone
from ai_proxy_mw._http import Body, Ending, Response
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw._stop import Stop
from ai_proxy_mw._terms import Terms
from ai_proxy_mw._under_way import UnderWay

EVENT = b'data: {"a": 1}\n\n'


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Fed(Body):
    """A body that is fed by hand. An exception that is fed is raised; None is the end."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.closed = False
        self.over = False

    def feed(self, *pieces: bytes | Exception | None) -> None:
        for piece in pieces:
            self._queue.put_nowait(piece)

    @property
    def ended(self) -> bool:
        return self.over

    async def __anext__(self) -> bytes:
        piece = await self._queue.get()
        if piece is None:
            raise StopAsyncIteration
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def aclose(self) -> None:
        self.closed = True


class Desk:
    """One call: what is sent to its caller, and who watches."""

    def __init__(
        self,
        *,
        event_stream: bool = True,
        headers: list[tuple[bytes, bytes]] | None = None,
        keepalive: float = 15.0,
        write: float = 30.0,
        drain_max: float | None = None,
        arrived: bool = True,
    ) -> None:
        self.clock = Clock()
        self.stop = Stop(drain=10.0, signals=False, clock=self.clock)
        self.terms = Terms(keepalive, write, drain_max, self.stop)
        self.body = Fed()
        self.response = Response(200, headers or [], self.body)
        self.response.event_stream = event_stream
        self.response.observers.append(self)
        self.sent: list[bytes] = []
        self.lasts = 0
        self.stuck = asyncio.Event()
        self.stuck.set()
        self.fails: OSError | None = None
        self.start_fails: OSError | None = None
        self.seen: list[bytes] = []
        self.ending: Ending | None = None
        self.leaves_first = False
        self._arrived = arrived
        self.call: UnderWay

    # -- an observer ---------------------------------------------------------------------------

    def chunk(self, data: bytes) -> None:
        self.seen.append(data)

    def end(self, how: Ending) -> None:
        assert self.ending is None
        self.ending = how

    # -- a door --------------------------------------------------------------------------------

    async def begin(self) -> asyncio.Task[str]:
        task = asyncio.create_task(self._run())
        await settle()
        return task

    async def _run(self) -> str:
        async def pull() -> tuple[bytes, bool]:
            raise AssertionError("nobody reads it")

        call = self.call = UnderWay(
            self.terms, RequestBody(pull, declared=None, limit=1, empty=self._arrived)
        )
        if self.leaves_first:
            call.leave()
        try:
            await deliver(self.response, self._start, self._write, call)
        except (Truncated, ClientGone) as error:
            return type(error).__name__
        except asyncio.CancelledError:
            if not call.caused_cancel():
                raise
            assert call.cut_for
            return call.cut_for.name
        finally:
            call.off()
        return "whole"

    async def _start(self, response: Response) -> None:
        if self.start_fails is not None:
            raise self.start_fails
        self.sent.append(b"HEAD")

    async def _write(self, chunk: bytes, last: bool) -> None:
        await self.stuck.wait()
        if self.fails is not None:
            raise self.fails
        self.sent.append(chunk)
        self.lasts += last
        assert self.lasts < 2

    # -- the clock -----------------------------------------------------------------------------

    async def passes(self, seconds: float) -> bool:
        """Look, let the time pass, look again; whether it is still to be looked after."""
        self.call.attend(self.clock.now)
        self.clock.now += seconds
        again = self.call.attend(self.clock.now)
        await settle()
        return again


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(test: Any) -> Any:
    """Makes an ordinary test of a coroutine function."""

    def inner(**arguments: Any) -> None:
        asyncio.run(test(**arguments))

    inner.__name__ = test.__name__
    inner.__doc__ = test.__doc__
    return inner
