"""Bodies that do what a test wants of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

from ai_proxy_mw._http import Body, Response


class Scripted(Body):
    """Gives bytes, raises errors, and waits for the test where there is an event.

    As unforgiving as a body may be: it cannot be cancelled while it waits without breaking off,
    and its `ready` does not wait, but raises `to_be_ready` where a test has set it.
    """

    def __init__(self, *steps: bytes | BaseException | asyncio.Event) -> None:
        self._steps = list(steps)
        self.closed = 0
        self.reading = False
        self.broken = False
        self.asked = 0
        self.to_be_ready: BaseException | None = None
        self.when_cancelled: BaseException | None = None

    @property
    def ended(self) -> bool:
        return not self._steps

    async def __anext__(self) -> bytes:
        self.asked += 1
        assert not self.reading, "two read at once"
        assert not self.broken, "read on after it broke off"
        self.reading = True
        try:
            return await self._next()
        except asyncio.CancelledError:
            self.broken = True
            if self.when_cancelled is not None:
                raise self.when_cancelled from None
            raise
        finally:
            self.reading = False

    async def ready(self) -> None:
        if self.to_be_ready is not None:
            raise self.to_be_ready

    async def _next(self) -> bytes:
        while self._steps:
            step = self._steps.pop(0)
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, BaseException):
                raise step
            else:
                return step
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


def stream(*steps: bytes | BaseException | asyncio.Event) -> tuple[Response, Scripted]:
    body = Scripted(*steps)
    response = Response(200, [(b"content-type", b"text/event-stream")], body)
    response.event_stream = True
    return response, body


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


async def rest(body: Body) -> bytes:
    return b"".join([piece async for piece in body])
