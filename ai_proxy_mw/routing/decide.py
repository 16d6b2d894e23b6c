"""What is done after a send has failed: again, another lane, or nothing more. It only decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from ai_proxy_mw._retry import Retry
    from ai_proxy_mw.routing.outcome import Outcome

L = TypeVar("L")

Reason = Literal[
    "consumed", "final", "may_have_worked", "too_late", "attempts", "unwanted", "pause", "budget"
]
"""Why a call is given up.

consumed: its body is gone. final: such a failure is not repeated. may_have_worked: it might be done
twice. too_late: past its time. attempts: there were as many as may be. unwanted: the upstream says
not to repeat it. pause: longer than can be waited. budget: too many are repeated just now.
"""

_ACCOUNT = (401, 402, 403)
"""The upstream does not want our account. Callers' credentials never get there, so that the call
may do well with another one, and will not with this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt(Generic[L]):
    """A send that has failed, and what could follow it.

    number: how many sends its group has had, this one included.
    began: when the first send of the call did.
    deadline: when nobody waits for the answer any more; None if that is not known.
    untried: lanes of this group that may be asked now and were not yet, the best one first.
    later: those of the next group.
    repeatable: whether the body is still there to be sent.
    safe: whether sending it twice can do no more than once (RFC 9110, section 9.2.2, or an
        `Idempotency-Key`).

    Times are of the policy's clock.
    """

    number: int
    began: float
    repeatable: bool
    safe: bool
    deadline: float | None = None
    untried: Sequence[L] = ()
    later: Sequence[L] = ()


@dataclass(frozen=True, slots=True)
class Again:
    """Ask this group again, `after` so many seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class Next(Generic[L]):
    """Ask that lane, at once."""

    lane: L


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure is the caller's answer."""

    reason: Reason


class Policy:
    """Decides by `Retry`.

    clock: in seconds, as time.monotonic. random: a number from 0 up to but not with 1.
    may_repeat: whether one repeat more is granted just now; asked only for one that is then made.
    """

    def __init__(
        self,
        retry: Retry,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        may_repeat: Callable[[], bool],
    ) -> None:
        self._retry = retry
        self._unsafe = frozenset(retry.unsafe)
        self._clock = clock
        self._random = random
        self._may_repeat = may_repeat

    def decide(self, attempt: Attempt[L], outcome: Outcome) -> Again | Next[L] | GiveUp:
        """What follows. Another lane of the group goes before a pause, and that before a lane of
        the next group: each lane of a group is asked once, even beyond `attempts`."""
        reason = self._forbids(attempt, outcome)
        if reason is not None:
            return GiveUp(reason)
        now, until = self._clock(), self._until(attempt)
        if now >= until:
            return GiveUp("too_late")
        if attempt.untried:
            return Next(attempt.untried[0])
        again = self._again(attempt.number, outcome, until - now)
        if isinstance(again, GiveUp) and attempt.later:
            return Next(attempt.later[0])
        return again

    def _forbids(self, attempt: Attempt[L], outcome: Outcome) -> Reason | None:
        """Why it must not be sent a second time at all."""
        if not attempt.repeatable:
            return "consumed"
        if not self._listed(outcome) and outcome.what not in _ACCOUNT:
            return "final"
        if outcome.may_have_worked and not attempt.safe and outcome.what not in self._unsafe:
            return "may_have_worked"
        return None

    def _listed(self, outcome: Outcome) -> bool:
        what = outcome.what
        asked_for = outcome.should_retry is True and isinstance(what, int) and what >= 400
        return asked_for or what in self._retry.listed

    def _until(self, attempt: Attempt[L]) -> float:
        """When no further send begins."""
        total_at = attempt.began + self._retry.total
        return total_at if attempt.deadline is None else min(total_at, attempt.deadline)

    def _again(self, number: int, outcome: Outcome, left: float) -> Again | GiveUp:
        """The same lanes once more, with `left` seconds to begin in."""
        if not self._listed(outcome):
            return GiveUp("final")
        if outcome.should_retry is False:
            return GiveUp("unwanted")
        if number >= self._retry.attempts:
            return GiveUp("attempts")
        pause = self._pause(number, outcome.retry_after)
        if pause > self._retry.cap or pause >= left:
            return GiveUp("pause")
        return Again(pause) if self._may_repeat() else GiveUp("budget")

    def _pause(self, number: int, asked: float | None) -> float:
        """Full jitter: of all ways to spread repeats the one that makes the least work (AWS)."""
        retry = self._retry
        pause = self._random() * min(retry.cap, retry.backoff * 2.0 ** (number - 1))
        return pause if asked is None or not retry.respect_retry_after else max(pause, asked)
