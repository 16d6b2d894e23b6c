"""Processes side by side on one store, in one event loop: each is a `Flights` of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from ai_proxy_mw import MemoryCache
from ai_proxy_mw._http import Body, Ending, Response
from ai_proxy_mw.caching import follow, lease
from ai_proxy_mw.caching.entry import Entry
from ai_proxy_mw.caching.flight import Flight, Head, Listener
from ai_proxy_mw.caching.flights import Flights
from ai_proxy_mw.caching.keeper import Keeper
from ai_proxy_mw.stores import guard

KEY = f"e:12345678:{'a' * 64}"
Line = bytes | Exception | None

STREAM = [(b"content-type", b"text/event-stream")]
JSON = [(b"content-type", b"application/json")]

TIMES = {
    lease: {"FIRST_LOOK": 0.01, "LOOK": 0.02, "PACE": 0.002, "WANTED": 0.1, "LEASE": 0.2},
    follow: {"LOOK": 0.02, "PACE": 0.002, "WANTED": 0.1, "LEASE": 0.2, "ASK_LOCK": 0.01},
    guard: {"PATIENCE": 0.05, "FIRST_PAUSE": 0.02},
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it some ten times as fast."""
    for module, times in TIMES.items():
        for name, seconds in times.items():
            monkeypatch.setattr(module, name, seconds)


class SharedStore(MemoryCache):
    """Memory that passes for a store of many processes, and fails where it is told to."""

    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        """Operations that fail, by their names."""
        self.asked: list[str] = []
        self.before_set: Callable[[str], Coroutine[Any, Any, None]] | None = None
        self.before_lock: Callable[[str], Coroutine[Any, Any, None]] | None = None

    async def get(self, key: str) -> bytes | None:
        self._ask("get")
        return await super().get(key)

    async def set(self, key: str, value: bytes, **options: Any) -> None:
        self._ask("set")
        if self.before_set is not None:
            await self.before_set(key)
        await super().set(key, value, **options)

    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        self._ask("lock")
        holder = await super().lock(name, owner, lease=lease)
        if self.before_lock is not None:
            await self.before_lock(owner)
        return holder

    async def unlock(self, name: str, owner: str) -> None:
        self._ask("unlock")
        await super().unlock(name, owner)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if what in self.broken:
            raise OSError(what)

    @property
    def holder(self) -> str | None:
        held = self._locks.get(KEY)
        return None if held is None or held[1] <= time.monotonic() else held[0]

    def values(self, prefix: str) -> dict[str, bytes]:
        return {k: each.value for k, each in self._entries.items() if k.startswith(prefix)}


class Script(Body):
    """What an upstream says, piece by piece, when the test wants it to."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.closed = False

    def say(self, *lines: Line) -> None:
        for line in lines:
            self.lines.put_nowait(line)

    @property
    def ended(self) -> bool:
        return False

    async def __anext__(self) -> bytes:
        line = await self.lines.get()
        if line is None:
            raise StopAsyncIteration
        if isinstance(line, Exception):
            raise line
        return line

    async def aclose(self) -> None:
        self.closed = True


class Call:
    """One call upstream."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.body = Script()
        self.how: Ending | None = None

    def begin(
        self,
        *lines: bytes | Exception | None,
        json: bool = False,
        status: int = 200,
        aside: Sequence[bytes] = (),
    ) -> None:
        response = Response(status, JSON if json else STREAM, self.body)
        response.event_stream = not json
        response.aside = aside
        response.observers.append(self)
        self.answer.set_result(response)
        self.body.say(*lines)

    def chunk(self, data: bytes) -> None:
        pass

    def end(self, how: Ending) -> None:
        self.how = how


class Upstream:
    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def ask(self) -> Response:
        call = Call()
        self.calls.append(call)
        return await call.answer

    async def called(self, number: int = 1) -> Call:
        await until(lambda: len(self.calls) >= number)
        return self.calls[number - 1]


class Process:
    def __init__(self, store: SharedStore, upstream: Upstream, *, most: int = 1000) -> None:
        self.upstream = upstream
        self.keeper = Keeper(store)
        self.flights = Flights(self.keeper, most=most, is_fresh=lambda entry: entry.ttl > 1)
        self.keeps = True
        self.flight: Flight | None = None

    def ask(self, known: Entry | None = None) -> Caller:
        self.flight = self.flights.under_way(KEY) or self.flights.begin(
            KEY, self.upstream.ask, self._keep, alone=False, apart=False, known=known
        )
        return Caller(self.flight.listen(began=True))

    def die(self) -> None:
        """As by a signal: nothing is told, nothing is let go of."""
        assert self.flight is not None
        self.keeper.store = SharedStore()
        self.keeper.store.broken = {"get", "set", "lock", "unlock"}
        assert self.flight.task is not None
        self.flight.task.cancel()

    async def _keep(self, flight: Flight) -> bool:
        if not self.keeps:
            return False
        return await self.keeper.keep(entry(body=b"".join(flight.pieces)), [])


class Caller:
    """Reads an answer as far as it comes."""

    def __init__(self, listener: Listener) -> None:
        self.heard: list[bytes] = []
        self.head: Head | None = None
        self.error: BaseException | None = None
        self.done = False
        self.listener = listener
        self.task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            self.head = await self.listener.head()
            async for piece in self.listener:
                self.heard.append(piece)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        self.done = True

    async def hears(self, text: bytes) -> None:
        await until(lambda: b"".join(self.heard) == text)

    async def end(self) -> bytes:
        """All that was heard. Raises what it ended with."""
        await until(lambda: self.done)
        if self.error is not None:
            raise self.error
        return b"".join(self.heard)

    async def fails(self) -> BaseException:
        await until(lambda: self.done)
        assert self.error is not None
        return self.error

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.listener.aclose()


async def until(ready: Callable[[], bool], patience: float = 3.0) -> None:
    async with asyncio.timeout(patience):
        while not ready():
            await asyncio.sleep(0.001)


def entry(**changes: Any) -> Entry:
    made: dict[str, Any] = {
        "key": KEY,
        "created": time.time(),
        "ttl": 60.0,
        "status": 200,
        "headers": JSON,
        "endpoint": "POST /chat/completions",
        "body": b"kept",
    }
    return Entry(**{**made, **changes})


@contextmanager
def nothing_left() -> Iterator[None]:
    """No task outlives what is done within."""
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left
