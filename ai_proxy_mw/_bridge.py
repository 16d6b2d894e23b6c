"""Between a WSGI worker's thread and the event loop: items come out, small jobs go back.

The worker waits on one queue. The loop puts there what the worker shall send, and functions that
must run in the worker's own thread: reading `wsgi.input`, and hooks that need the framework's
thread-locals. Nothing is locked: each counter has one writer, and the queue is the only meeting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from ai_proxy_mw._errors import ClientGone
from ai_proxy_mw._types import RawHeaders

T = TypeVar("T")

HEAR_EVERY = 0.25
"""Seconds after which a waiting worker looks up: in a main thread that waits for a lock no signal
is heard where they are told, as gunicorn tells them, not to interrupt."""

HIGH_WATER = 256 * 1024
"""Bytes on their way to a worker before the loop waits for it."""


class Piece(NamedTuple):
    """A part of the answer. The first one has the head; `last` says that nothing follows."""

    head: tuple[int, RawHeaders] | None
    chunk: bytes
    last: bool


class Broken(NamedTuple):
    """The answer ends here without its end mark."""


class _Job(NamedTuple):
    function: Callable[[], Any]
    done: asyncio.Future[Any]


class Bridge:
    """One for each call. Methods say which side may call them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: SimpleQueue[Piece | Broken | _Job] = SimpleQueue()
        self._put = 0
        self._taken = 0
        self._let_go = False
        self._room: asyncio.Future[None] | None = None

    # -- the loop's side ---------------------------------------------------------------------

    async def send(self, piece: Piece) -> None:
        """Hand a piece to the worker; waits while it has much to send already."""
        if self._let_go:
            return
        self._put += len(piece.chunk)
        self._items.put(piece)
        while self._put - self._taken > HIGH_WATER and not piece.last and not self._let_go:
            self._room = self._loop.create_future()
            # Asked again: the worker may have been quicker than the line above, and not seen it.
            if self._put - self._taken > HIGH_WATER:
                await self._room
        self._room = None

    def break_off(self) -> None:
        self._items.put(Broken())

    def let_go(self) -> None:
        """Have the worker do no more for this call: what it has not taken is dropped."""
        self._let_go = True
        while True:
            try:
                item = self._items.get_nowait()
            except Empty:
                break
            if isinstance(item, _Job):
                _fail(item.done, ClientGone())
        self._items.put(Broken())
        self._make_room()

    async def run_sync(self, function: Callable[[], T], /) -> T:
        """Run a function in the worker's thread. Only while the worker waits for the answer."""
        if self._let_go:
            raise ClientGone
        done: asyncio.Future[T] = self._loop.create_future()
        self._items.put(_Job(function, done))
        return await done

    # -- the worker's side -------------------------------------------------------------------

    def take(self) -> Piece | Broken:
        """The next part of the answer, doing the jobs that come before it."""
        while True:
            try:
                item = self._items.get(timeout=HEAR_EVERY)
            except Empty:
                continue
            if not isinstance(item, _Job):
                break
            self._do(item)
        if isinstance(item, Piece):
            self._taken += len(item.chunk)
            if self._room is not None and self._put - self._taken <= HIGH_WATER:
                self._loop.call_soon_threadsafe(self._make_room)
        return item

    def _do(self, job: _Job) -> None:
        try:
            value = job.function()
        except Exception as error:  # noqa: BLE001 - it is raised again where it was awaited
            self._loop.call_soon_threadsafe(_fail, job.done, error)
        except BaseException:
            # SystemExit and the like are the worker's; in the loop they would end it for all.
            self._loop.call_soon_threadsafe(_fail, job.done, ClientGone())
            raise
        else:
            self._loop.call_soon_threadsafe(_finish, job.done, value)

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def _finish(done: asyncio.Future[Any], value: object) -> None:
    if not done.done():
        done.set_result(value)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
