"""A gate in front of the fake's answers, moved by hand from any thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from types import TracebackType
from typing import Self


class _Waiter:
    __slots__ = ("granted", "loop", "woken")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.woken: asyncio.Future[None] = self.loop.create_future()
        self.granted = False

    def wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


class Gate:
    """Lets one thing through per release, those who wait longest first.

    As a context manager it opens for good at the end, so that a failing test leaves nobody
    standing in front of it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._permits = 0
        self._waiting: deque[_Waiter] = deque()
        self.is_open = False

    @property
    def waiting(self) -> int:
        """How many answers stand in front of the gate."""
        return len(self._waiting)

    def release(self, n: int = 1) -> None:
        """Let `n` more through, now or when they come."""
        with self._changed:
            self._permits += n
            self._admit()

    def open(self) -> None:
        """Let everything through from now on."""
        with self._changed:
            self.is_open = True
            self._admit()

    def wait_until_held(self, n: int = 1, timeout: float = 5.0) -> None:
        """Block until `n` answers stand in front of the gate. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._waiting) >= n, timeout):
                raise TimeoutError(f"{self.waiting} of {n} answers reached the gate")

    def _admit(self) -> None:
        while self._waiting and (self.is_open or self._permits):
            waiter = self._waiting.popleft()
            try:
                waiter.loop.call_soon_threadsafe(waiter.wake)
            except RuntimeError:
                continue  # its loop was closed under it: nobody waits there
            waiter.granted = True
            if not self.is_open:
                self._permits -= 1

    async def walk_through(self) -> None:
        """Wait for a release."""
        with self._changed:
            if self.is_open:
                return
            if self._permits:
                self._permits -= 1
                return
            waiter = _Waiter()
            self._waiting.append(waiter)
            self._changed.notify_all()
        try:
            await waiter.woken
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def _leave(self, waiter: _Waiter) -> None:
        with self._changed:
            if not waiter.granted:
                self._waiting.remove(waiter)
                return
            self._permits += 1  # what it was given is the next one's
            self._admit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open()


class Gates:
    """The gates that stand now: one before the heads, one before the chunks of streams."""

    def __init__(self) -> None:
        self.headers: Gate | None = None
        self.chunks: Gate | None = None

    def open(self) -> None:
        for gate in (self.headers, self.chunks):
            if gate is not None:
                gate.open()
        self.headers = self.chunks = None
