"""Hearing the signals that stop a server, without taking them from it."""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

STOPS = (signal.SIGTERM, signal.SIGINT)


class Stoppable(Protocol):
    def begin(self) -> None:
        """Called in a signal handler: takes no lock, and writes no log."""
        ...


_followers: tuple[weakref.ref[Stoppable], ...] = ()


def follow(stoppable: Stoppable) -> None:
    """Have `begin` called when the process is told to stop; the server's own handler comes after.

    Only a handler that somebody has installed is followed: where there is none the process just
    ends, and Python's own raises KeyboardInterrupt. Does nothing outside the main thread, the only
    one that may install any.
    """
    global _followers  # noqa: PLW0603 - there are one process's signals
    if threading.current_thread() is not threading.main_thread():
        return
    # Made anew instead of changed: a signal may come at any line of this.
    others = [each for each in _followers if each() not in (None, stoppable)]
    _followers = (*others, weakref.ref(stoppable))
    for number in STOPS:
        earlier = signal.getsignal(number)
        # SIG_DFL and SIG_IGN are numbers, and None is one that Python did not install.
        if callable(earlier) and not _is_ours_or_pythons(earlier):
            signal.signal(number, _Chained(earlier))
            # As servers and event loops have it; `signal.signal` has just undone it.
            signal.siginterrupt(number, False)


def _is_ours_or_pythons(handler: object) -> bool:
    return isinstance(handler, _Chained) or handler is signal.default_int_handler


class _Chained:
    """Tells the followers and then does what was done before.

    An event loop's own handler does nothing: it learns of signals by its wake-up descriptor, which
    the interpreter writes to before any handler runs.
    """

    def __init__(self, earlier: Callable[[int, Any], Any]) -> None:
        self._earlier = earlier

    def __call__(self, number: int, frame: Any) -> None:
        try:
            for each in _followers:
                follower = each()
                if follower is not None:
                    follower.begin()
        finally:
            self._earlier(number, frame)
