"""The event loop behind the WSGI door: one thread per process, started when first needed."""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ai_proxy_mw._rounds import Rounds

T = TypeVar("T")

Closer = Callable[[], Awaitable[None]]

SETTLING = "ai_proxy_mw-settling"
"""The name of tasks that closing waits for: the end of the process does not cancel them."""

DRAINING = "ai_proxy_mw-draining"
"""The name of calls that go on without their caller: they are cancelled a moment later."""

DRAIN_WITHIN = 1.0
"""Seconds of that moment."""

STOP_WITHIN = 2.0
"""Seconds that the end of the process waits for connections to close."""


class LoopThread:
    """Runs an event loop in a daemon thread until `stop`."""

    def __init__(self) -> None:
        self.loop = _new_event_loop()
        self.rounds = Rounds()
        self._closers: dict[int, Closer] = {}
        self._thread = threading.Thread(target=self._run, name="ai_proxy_mw", daemon=True)
        self._thread.start()

    def at_stop(self, owner: object, close: Closer) -> None:
        """Have `close` awaited before the loop ends; once for each owner."""
        self._closers[id(owner)] = close

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine, for a thread that has no loop of its own."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("this would wait for itself: await it, or ask from another thread")
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._begin_stop)
            self._thread.join(STOP_WITHIN)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def _begin_stop(self) -> None:
        self._stopping = self.loop.create_task(self._close_all())

    async def _close_all(self) -> None:
        named: dict[str, set[asyncio.Task[Any]]] = {}
        for task in asyncio.all_tasks() - {self._stopping}:
            named.setdefault(task.get_name(), set()).add(task)
        named.pop(SETTLING, None)
        draining = named.pop(DRAINING, set())
        await _cancelled(set().union(*named.values()))
        if draining:
            _, late = await asyncio.wait(draining, timeout=DRAIN_WITHIN)
            await _cancelled(late)
        for close in self._closers.values():
            await close()
        # The transports that were aborted report it to their protocols in the next round.
        self.loop.call_soon(self.loop.stop)


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    if _is_green():
        return asyncio.new_event_loop()  # uvloop waits in C, which no other greenlet survives
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _is_green() -> bool:
    """Whether threads are gevent's greenlets here."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


_lock = threading.Lock()
_current: LoopThread | None = None


def loop_thread() -> LoopThread:
    """This process's loop thread. A fork (gunicorn's --preload) leaves the parent's behind."""
    global _current  # noqa: PLW0603 - there is one per process, like the process
    current = _current
    if current is None or current.loop.is_closed():
        with _lock:
            current = _current = _renewed(_current)
    return current


def _renewed(current: LoopThread | None) -> LoopThread:
    return LoopThread() if current is None or current.loop.is_closed() else current


def _forget() -> None:
    # Threads do not survive a fork, and the lock may be held by one that did not.
    global _lock, _current  # noqa: PLW0603 - see above
    _lock = threading.Lock()
    _current = None


@atexit.register
def _stop() -> None:
    if _current is not None:
        _current.stop()


os.register_at_fork(after_in_child=_forget)
