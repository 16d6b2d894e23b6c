"""Hands records to one hook, which may be slow or fail: the calls do not wait for it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._loop import SETTLING

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Record

logger = logging.getLogger("ai_proxy_mw")

MOST = 10_000
"""Records that may wait for a hook; further ones are lost, and counted."""

BATCH = 0.05
"""Seconds that a thread lets records gather: to wake it for each would cost each call that."""

CLOSE_WITHIN = 1.0
"""Seconds that the end of a proxy waits for a hook."""


class HookStats(NamedTuple):
    """What has become of the records that a hook should have got, in this process.

    delivered: of these it has failed with `failed`. lost: since too many waited for it, or the
    proxy was closed before it was done. waiting: now.
    """

    name: str
    delivered: int
    failed: int
    lost: int
    waiting: int


class Outlet(ABC):
    """A hook with a queue of its own."""

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self._most = most
        self.begin()
        _outlets.add(self)

    def begin(self) -> None:
        """Anew, in a child: the parent's records are the parent's, and its thread is not here."""
        self.delivered = 0
        self.failed = 0
        self.lost = 0
        self._fails = False
        self._loses = False

    @property
    def stats(self) -> HookStats:
        return HookStats(self.name, self.delivered, self.failed, self.lost, self.waiting)

    @property
    @abstractmethod
    def waiting(self) -> int:
        """How many records it has not got yet."""

    @abstractmethod
    def put(self, record: Record) -> None:
        """Take a record. Called in an event loop; never waits."""

    @abstractmethod
    async def aclose(self) -> None:
        """Wait a moment until nothing waits."""

    def _full(self) -> None:
        self.lost += 1
        if not self._loses:  # once for each time that it falls behind
            self._loses = True
            logger.warning("the hook %s is too slow: records are lost", self.name)

    def _done(self) -> None:
        self.delivered += 1
        self._fails = self._loses = False

    def _failed(self, error: BaseException) -> None:
        self.delivered += 1
        self.failed += 1
        if not self._fails:  # once for each time that it begins to
            self._fails = True
            logger.error("the hook %s has failed", self.name, exc_info=error)


class ThreadOutlet(Outlet):
    """For a hook that may block: it has a thread of its own, from the first record on."""

    def __init__(self, name: str, hook: Callable[[Record], object], most: int = MOST) -> None:
        super().__init__(name, most)
        self._hook = hook

    def begin(self) -> None:
        super().begin()
        self._queue: deque[Record] = deque()
        self._bell = threading.Event()
        self._closing = threading.Event()
        self._is_awake = False
        self._is_busy = False
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        return len(self._queue) + self._is_busy

    def put(self, record: Record) -> None:
        if len(self._queue) >= self._most:
            self._full()
            return
        self._queue.append(record)
        if not self._is_awake:
            self._is_awake = True
            self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=f"ai_proxy_mw {self.name}")
            thread.daemon = True
            try:
                thread.start()
            except RuntimeError:  # the process ends
                self._is_awake = False
                return
            self._thread = thread
        self._bell.set()

    def _run(self) -> None:
        while True:
            self._bell.wait()
            self._closing.wait(BATCH)
            self._bell.clear()
            self._is_awake = False  # before the last look: what comes after it rings again
            self._empty()

    def _empty(self) -> None:
        while self._queue:
            self._is_busy = True
            try:
                self._hook(self._queue.popleft())
            except BaseException as error:  # noqa: BLE001 - also SystemExit: the thread must stay
                self._failed(error)
            else:
                self._done()
            finally:
                self._is_busy = False

    async def aclose(self) -> None:
        self._closing.set()
        until = time.monotonic() + CLOSE_WITHIN
        # The thread may hang, and then nobody could tell.
        while self.waiting and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self.lost += len(self._queue)
        self._queue.clear()
        self._closing.clear()


class TaskOutlet(Outlet):
    """For a coroutine function: its records are handed over in the loop that the calls are in."""

    def __init__(
        self, name: str, hook: Callable[[Record], Awaitable[object]], most: int = MOST
    ) -> None:
        super().__init__(name, most)
        self._hook = hook

    def begin(self) -> None:
        super().begin()
        self._lines: dict[AbstractEventLoop, _Line] = {}

    @property
    def waiting(self) -> int:
        return sum(line.waiting for line in self._lines.values())

    def put(self, record: Record) -> None:
        line = self._here()
        if line.waiting >= self._most:
            self._full()
            return
        line.queue.append(record)
        if line.task is None:
            work = self._empty(line)
            # Named so that the end of the process lets it come to its end.
            line.task = asyncio.get_running_loop().create_task(work, name=SETTLING)

    async def _empty(self, line: _Line) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            while line.queue:
                line.is_busy = True
                try:
                    await self._hook(line.queue.popleft())
                except (Exception, SystemExit, asyncio.CancelledError) as error:
                    # Also SystemExit, which would end the loop of all calls, and what is cancelled
                    # that the hook has waited for: this task is not.
                    if isinstance(error, asyncio.CancelledError) and task.cancelling():
                        self.lost += 1
                        raise
                    self._failed(error)
                else:
                    self._done()
                finally:
                    line.is_busy = False
        finally:
            line.task = None

    async def aclose(self) -> None:
        line = self._lines.pop(asyncio.get_running_loop(), None)
        if line is None or line.task is None:
            return
        task = line.task
        await asyncio.wait([task], timeout=CLOSE_WITHIN)
        if not task.done():
            self.lost += len(line.queue)
            line.queue.clear()
            task.cancel()
            await asyncio.wait([task], timeout=CLOSE_WITHIN)

    def _here(self) -> _Line:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            running = {known: one for known, one in self._lines.items() if not known.is_closed()}
            line = _Line()
            self.lost += self.waiting - sum(each.waiting for each in running.values())
            self._lines = {**running, loop: line}
        return line


class _Line:
    """What waits in one event loop."""

    def __init__(self) -> None:
        self.queue: deque[Record] = deque()
        self.is_busy = False
        self.task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return len(self.queue) + self.is_busy


def outlet_of(hook: Any, most: int = MOST) -> Outlet:
    """The outlet for a function of the owner's, sync or async. Raises ConfigurationError."""
    if not callable(hook):
        raise ConfigurationError(f"on_record={hook!r}: write functions that take a Record")
    name = getattr(hook, "__name__", type(hook).__name__)
    call: Any = hook.func if isinstance(hook, partial) else hook
    if not inspect.isroutine(call):
        call = call.__call__
    if inspect.iscoroutinefunction(call):
        return TaskOutlet(name, hook, most)
    return ThreadOutlet(name, hook, most)


_outlets: WeakSet[Outlet] = WeakSet()


def _after_fork() -> None:
    for outlet in tuple(_outlets):
        outlet.begin()


os.register_at_fork(after_in_child=_after_fork)
