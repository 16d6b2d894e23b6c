"""Leaves a lane alone while it fails, and tries it with a few calls before all go there again."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Literal

from ai_proxy_mw._circuit import Circuit
from ai_proxy_mw.routing.window import Window

State = Literal["closed", "open", "half_open", "cooling"]

logger = logging.getLogger("ai_proxy_mw")

LONGEST_COOLING = 3600.0
"""Seconds that a lane without a circuit rests, whatever its upstream asks for."""

LONGEST_PROBE = 600.0
"""Seconds after which a probe that tells nothing gives its place to the next; or `longest`."""

SOON = 1.0
"""Seconds to wait while probes are under way: they tell sooner than their places run out."""

HELD_BACK = 15.0
"""Seconds, in all, that a half-open circuit lets other processes go first. One that was the first
and then has no call for the lane must not keep the others from it.
"""


class Breaker:
    """The circuit of one lane, in this process.

    circuit: None for a lane that is never judged and only cools.
    name: of the lane, for the log; never a key.
    clock: seconds that only go forward.

    It counts how calls end, not how they begin, and it opens when one fails, not when one goes
    well. Each time it opens or closes a new round begins, and a call tells only about the round
    that it began in. So one that began before it opened neither closes it nor opens it again.

    Nothing waits and no timer runs: what has become of it is seen when somebody asks. It belongs
    to no event loop; with loops in several threads a count may be off by a call.
    """

    def __init__(
        self,
        circuit: Circuit | None,
        *,
        name: str,
        clock: Callable[[], float],
        on_change: Callable[[Breaker], None] | None = None,
    ) -> None:
        terms = circuit or Circuit()
        self.name = name
        self.longest = LONGEST_COOLING if circuit is None else terms.longest
        """Seconds that it is closed off at most, at a time."""
        self.on_change = on_change
        """Told when it has opened, closed or cooled by what happened in this process."""
        self.judgements = 0
        """How often it has opened or closed by what happened in this process."""
        self.coolings = 0
        """How often it was told to cool in this process."""
        self.opened = 0
        """How often it has opened, whoever found out; probes in vain count, too."""
        self.wanted = False
        """Whether somebody would have asked it while it was closed off; set back by who looks."""
        self._terms = terms
        self._judges = circuit is not None
        self._clock = clock
        self._window = Window(terms.window)
        self._is_clear = True  # neither open nor cooling: spares most calls the look at the clock
        self._is_open = False
        self._open_for = terms.open_for
        self._open_until = -math.inf
        self._held_until = -math.inf
        self._cool_until = -math.inf
        self._round = 1
        self._probes: dict[int, float] = {}  # those under way, and when their places run out
        self._last_probe = 0
        self._stale_probes = 0  # up to which number they are of former rounds
        self._probe_lease = min(terms.longest, LONGEST_PROBE)

    @property
    def available(self) -> bool:
        """Whether the lane may be asked now."""
        return self._is_clear or self._may_be_asked(self._clock())

    @property
    def state(self) -> State:
        now = self._clock()
        if now < self._open_until:
            return "open"
        if now < self._cool_until:
            return "cooling"
        return "half_open" if self._is_open else "closed"

    @property
    def wait(self) -> float:
        """Seconds until it may be asked; 0 if it may be now."""
        now = self._clock()
        if self._may_be_asked(now):
            return 0.0
        left = max(self._open_until, self._cool_until) - now
        # Else all probes are under way.
        return left if left > 0 else min(SOON, min(self._probes.values(), default=now) - now)

    @property
    def open_left(self) -> float:
        """Seconds that it is still open; 0 or less where it is closed or half open."""
        return self._open_until - self._clock() if self._is_open else 0.0

    @property
    def cool_left(self) -> float:
        """Seconds that it still cools; 0 or less where it does not."""
        return self._cool_until - self._clock()

    @property
    def is_open(self) -> bool:
        """Whether it is open or half open."""
        return self._is_open

    @property
    def calls(self) -> int:
        """How many calls have ended within the window."""
        self._window.roll(self._clock())
        return self._window.calls

    @property
    def failures(self) -> int:
        """How many of them have failed."""
        self._window.roll(self._clock())
        return self._window.failures

    def begin(self) -> int:
        """A token for a call that goes to the lane now; to be given to just one of `succeeded`,
        `failed` and `abandoned`.

        0 if it may not be asked (any more, since others were quicker): take another lane.
        """
        if self._is_clear:
            return self._round
        now = self._clock()
        if not self._may_be_asked(now):
            return 0
        if not self._is_open:
            return self._round
        self._last_probe += 1
        self._probes[self._last_probe] = now + self._probe_lease
        return -self._last_probe

    def succeeded(self, token: int) -> None:
        """The upstream has answered well, be it that the caller was wrong."""
        if token == self._round:
            self._window.add(self._clock(), 0)
        elif self._is_probe(token):
            self._close()
            self._judged()

    def failed(self, token: int) -> None:
        """The upstream was not reached, did not answer or was in trouble."""
        if token == self._round:
            self._window.add(self._clock(), 1)
            if self._judges and self._fails_too_often():
                self._open(self._terms.open_for, self._terms.open_for)
                logger.warning("%s: fails too often, left alone for a while", self.name)
                self._judged()
        elif self._is_probe(token):
            seconds = min(self._terms.longest, 2 * self._open_for)
            self._open(seconds, seconds)
            self._judged()

    def abandoned(self, token: int) -> None:
        """It is not known how the call would have ended: its caller has left."""
        self._probes.pop(-token, None)

    def cool(self, seconds: float) -> None:
        """The upstream has asked to be left alone (429 with Retry-After); at most `longest`."""
        if self._rest(seconds):
            self.coolings += 1
            self._tell()

    def learn_open(self, seconds: float) -> None:
        """Another process has found the lane failing, and will leave it alone for so long."""
        seconds = min(seconds, self._terms.longest)
        if not self._judges or not seconds > 0:
            return
        until = self._clock() + seconds
        if not self._is_open:
            self._open(seconds, max(seconds, self._terms.open_for))
            logger.warning("%s: fails in another process, left alone for a while", self.name)
        elif until > self._open_until:
            self._open_for = max(self._open_for, seconds)  # a probe in vain then doubles it
            self._leave_alone(until)

    def learn_closed(self) -> None:
        """A probe of another process has gone well."""
        if self._is_open:
            self._close()

    def learn_cooling(self, seconds: float) -> None:
        """Another process was told to leave this key alone for so long."""
        self._rest(seconds)

    def hold_back(self, seconds: float) -> None:
        """Let another process try first; at most HELD_BACK in all."""
        if self._is_open and not self._probes:
            until = min(self._clock() + seconds, self._held_until)
            self._open_until = max(self._open_until, until)

    def _may_be_asked(self, now: float) -> bool:
        self.wanted = True
        if now < self._open_until or now < self._cool_until:
            return False
        if self._is_open:
            return len(self._probes) < self._terms.probes or self._forget_lost_probes(now)
        self._is_clear = True
        if self._is_open or now < self._cool_until:  # another thread has just closed it off
            self._is_clear = False
        return True

    def _forget_lost_probes(self, now: float) -> bool:
        """Whether there was one. If it tells something after all, that still counts."""
        lost = [probe for probe, due in tuple(self._probes.items()) if due <= now]
        for probe in lost:
            self._probes.pop(probe, None)
        return bool(lost)

    def _is_probe(self, token: int) -> bool:
        """Whether it is one of this round, so that its word counts."""
        return -token > self._stale_probes

    def _fails_too_often(self) -> bool:
        window, terms = self._window, self._terms
        return window.calls >= terms.calls and window.failures / window.calls >= terms.ratio

    def _open(self, seconds: float, before_doubling: float) -> None:
        self._begin_round()
        self.opened += 1
        self._open_for = before_doubling
        self._leave_alone(self._clock() + seconds)
        self._is_open = True
        self._is_clear = False

    def _leave_alone(self, until: float) -> None:
        self._open_until = until
        self._held_until = until + HELD_BACK

    def _close(self) -> None:
        self._begin_round()
        self._is_open = False  # whether it is clear is seen by the next who asks: it may be cooling
        self._open_until = -math.inf
        logger.warning("%s: answers again", self.name)

    def _begin_round(self) -> None:
        self._round += 1
        self._stale_probes = self._last_probe
        self._probes.clear()
        self._window.clear()

    def _rest(self, seconds: float) -> bool:
        """Whether that is longer than it would have cooled."""
        if not seconds > 0:
            return False
        until = self._clock() + min(seconds, self.longest)
        if until <= self._cool_until:
            return False
        self._cool_until = until
        self._is_clear = False
        return True

    def _judged(self) -> None:
        self.judgements += 1
        self._tell()

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change(self)
