"""The end of a server: no new calls, and a while for those under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ai_proxy_mw._signals import follow

GRACE = 1.0
"""Seconds after the deadline in which a call may still come to a clean end."""

_LOOK_EVERY = 0.02


class Stop:
    """Whether the process is stopping, and until when calls may go on.

    drain: seconds that the calls under way are given.
    signals: whether to begin when the process is told to stop.
    """

    def __init__(
        self, *, drain: float, signals: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.drain = drain
        self.deadline: float | None = None
        """None while nothing stops."""
        self.calls: set[object] = set()
        """Those under way, on whatever thread's loop: adding and removing are atomic."""
        self.met = False
        """Whether a call has come."""
        self._signals = signals
        self._clock = clock

    def begin(self) -> None:
        """From any thread, and from a signal handler. A second time changes nothing."""
        if self.deadline is None:
            self.deadline = self._clock() + self.drain

    def begun(self) -> bool:
        """Whether no more calls are taken."""
        return self.deadline is not None

    def reset(self) -> None:
        """A server starts, or everything is closed: the next calls are served."""
        self.deadline = None

    def is_over(self, after: float = 0.0) -> bool:
        """Whether the deadline has passed, and so many seconds."""
        return self.deadline is not None and self._clock() >= self.deadline + after

    def meet(self) -> None:
        """With the first call: a worker that was forked later has its handlers now."""
        self.met = True
        self.listen()

    def listen(self) -> None:
        """Begin when the server is told to stop, if that is wanted."""
        if self._signals:
            follow(self)

    async def idle(self) -> None:
        """Wait for the calls under way, no longer than they may take."""
        # Not an event: the calls are of several loops, and each would have to tell the others.
        while self.calls and not self.is_over(2 * GRACE):  # noqa: ASYNC110 - see above
            await asyncio.sleep(_LOOK_EVERY)
