"""As many calls at a time as there are places; some more wait, fair between subjects."""

from __future__ import annotations

import asyncio
import math
from asyncio import get_running_loop
from typing import TYPE_CHECKING

from ai_proxy_mw.routing.line import Line

if TYPE_CHECKING:
    from ai_proxy_mw._concurrency import Concurrency


class Gate:
    """May be used from several event loops: each has places and a line of its own.

    The limit counts per event loop, of which a process has one behind either door.
    `retry_after` is what to tell those who are turned away, in seconds: by then all who wait now
    have had their turn or have given up.
    """

    def __init__(self, concurrency: Concurrency) -> None:
        self.concurrency = concurrency
        self.retry_after = max(1, math.ceil(concurrency.wait))
        self._by_loop: dict[asyncio.AbstractEventLoop, Places] = {}
        self._last: Places | None = None

    def here(self) -> Places:
        """The places of the running loop."""
        loop = get_running_loop()
        last = self._last
        if last is None or last.loop is not loop:
            last = self._last = self._by_loop.get(loop) or self._new(loop)
        return last

    def _new(self, loop: asyncio.AbstractEventLoop) -> Places:
        places = Places(self.concurrency, loop)
        # A loop that has ended took its calls with it.
        running = {known: here for known, here in self._by_loop.items() if not known.is_closed()}
        self._by_loop = {**running, loop: places}
        return places


class Places:
    """Those of one event loop, `inside` of them taken.

    Who leaves hands the place to the next in line, so it is never free while somebody waits, and
    nobody overtakes.
    """

    __slots__ = ("_limit", "_line", "_queue", "_wait", "inside", "loop")

    def __init__(self, concurrency: Concurrency, loop: asyncio.AbstractEventLoop) -> None:
        self._limit = concurrency.limit
        self._queue = concurrency.queue
        self._wait = concurrency.wait
        self._line: Line[Turn] = Line()
        self.loop = loop
        self.inside = 0

    @property
    def waiting(self) -> int:
        return len(self._line)

    def try_enter(self) -> bool:
        """Take a place if one is free. Whoever has one must `leave`."""
        if self.inside < self._limit:
            self.inside += 1
            return True
        return False

    async def enter(self, subject: str) -> bool:
        """Take a place, waiting for it if need be; false if there is none in time."""
        if self.try_enter():
            return True
        turn = self.line_up(subject)
        return turn is not None and await turn.wait()

    def line_up(self, subject: str) -> Turn | None:
        """A turn to wait for, where `try_enter` found no place; None if too many wait.

        In a full line, who has many waiting makes room for who has at least two fewer. One
        fewer is not enough: then each of two could push the other out without end, and who
        comes under ever new names everybody.
        """
        line = self._line
        if len(line) >= self._queue:
            if line.of(subject) + 1 >= line.most:
                return None
            line.drop().end(False)
        turn = Turn(self, subject, self._wait)
        line.join(subject, turn)
        return turn

    def leave(self) -> None:
        """Give up a place."""
        while self._line:
            if self._line.next().end(True):
                return
        self.inside -= 1

    def forget(self, subject: str, turn: Turn) -> None:
        """Have somebody wait no longer."""
        self._line.leave(subject, turn)


class Turn:
    """Somebody who waits. It ends once: with a place or without."""

    __slots__ = ("_ended", "_places", "_subject", "_timer")

    def __init__(self, places: Places, subject: str, patience: float) -> None:
        self._places = places
        self._subject = subject
        self._ended: asyncio.Future[bool] = places.loop.create_future()
        self._timer = places.loop.call_later(patience, self.give_up)

    async def wait(self) -> bool:
        """Whether there is a place. Must be awaited, at once, or the turn given up."""
        try:
            return await self._ended
        except asyncio.CancelledError:
            # Its future is cancelled too, unless it was served in the moment it left: then what
            # it was given goes to the next.
            if self._ended.cancelled():
                self._places.forget(self._subject, self)
            elif self._ended.result():
                self._places.leave()
            raise
        finally:
            self._timer.cancel()

    def give_up(self) -> None:
        """Wait no longer; nothing happens if it has ended already."""
        self._places.forget(self._subject, self)
        self.end(False)

    def end(self, entered: bool) -> bool:
        """Tell who waits; false if nobody does any more."""
        if self._ended.done():
            return False
        self._ended.set_result(entered)
        return True
