"""When a call that failed is sent again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._numbers import is_number

Kind = Literal["connect", "busy", "reset", "timeout", "bad_response"]
"""How a send fails that gets no answer."""

Unsafe = Literal["reset", "timeout", "bad_response"]
"""Those of them after which the upstream may have worked on the call all the same."""

DEFAULT_ON: frozenset[int | str] = frozenset(
    {"connect", "busy", "reset", 408, 409, 429, 500, 502, 503, 504}
)

_KINDS = get_args(Kind)
_UNSAFE = get_args(Unsafe)
_LONGEST = 86400.0
_MOST = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """How often, how long and after what a failed call is sent again.

    Only what has not begun to leave for the caller is ever repeated.

    attempts: sends to the upstreams of one priority and model before the next are asked, the first
        one included. 1 for no repeats.
    total: seconds since the first send after which no further one begins.
    backoff: seconds; the most that the first pause takes, doubled with each further send. The pause
        is drawn between 0 and that, so that callers do not come back all at once.
    cap: seconds; the longest pause. An upstream that wants a longer one is not waited for.
    on: after what: statuses, and "connect" (no connection), "busy" (all of ours in use), "reset"
        (broken off before any byte of the answer), "timeout" (silent too long before it) and
        "bad_response" (an answer that cannot be read, or an empty one).
    unsafe: which of "reset", "timeout" and "bad_response" are repeated even where the upstream may
        have worked on the call, which then may be paid for twice: it had the whole of it, gave no
        answer, and there is no idempotency key. They count as in `on`.
    respect_retry_after: whether a pause is at least what the upstream asks for.
    budget: the repeats as a share of all calls, 0.1 for 10 %, besides a few that are always free;
        None for no bound. It keeps a failing upstream from being asked many times as often.

    Raises ConfigurationError.
    """

    attempts: int = 3
    total: float = 30.0
    backoff: float = 0.5
    cap: float = 30.0
    on: Iterable[int | str] = DEFAULT_ON
    unsafe: Iterable[str] = frozenset()
    respect_retry_after: bool = True
    budget: float | None = 0.1
    listed: frozenset[int | str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check_numbers()
        if not isinstance(self.respect_retry_after, bool):
            raise ConfigurationError("Retry(respect_retry_after=...): write True or False")
        on = _set_of(self.on)
        if on is None or not all(map(_can_be_on, on)):
            raise ConfigurationError(
                f"Retry(on={self.on!r}): write a list of statuses from 400 to 599 and of {_KINDS}"
            )
        unsafe = _set_of(self.unsafe)
        if unsafe is None or not unsafe <= {*_UNSAFE}:
            raise ConfigurationError(
                f"Retry(unsafe={self.unsafe!r}): write a list of some of {_UNSAFE}"
            )
        object.__setattr__(self, "on", on)
        object.__setattr__(self, "unsafe", unsafe)
        object.__setattr__(self, "listed", on | unsafe)

    def _check_numbers(self) -> None:
        if type(self.attempts) is not int or not 1 <= self.attempts <= _MOST:
            raise ConfigurationError(
                f"Retry(attempts={self.attempts!r}): write a number from 1 (no repeats) to {_MOST}"
            )
        for name in ("total", "backoff", "cap"):
            seconds = getattr(self, name)
            if not is_number(seconds) or not 0 <= seconds <= _LONGEST:  # NaN is not, either
                raise ConfigurationError(
                    f"Retry({name}={seconds!r}): write a number of seconds, a day at most"
                )
        if self.total == 0:
            raise ConfigurationError("Retry(total=0): for no repeats write attempts=1")
        if self.budget is not None and not (is_number(self.budget) and 0 < self.budget <= 1):
            raise ConfigurationError(
                f"Retry(budget={self.budget!r}): write a share like 0.1 for 10 %, None for no "
                "bound, or attempts=1 for no repeats"
            )


def _set_of(given: object) -> frozenset[object] | None:
    """The members of a list or such; None for a text alone, and for what cannot be in `on`."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        return None
    members = list(given)
    # By type, since True is the number 1 for a set.
    return frozenset(members) if all(type(each) in (int, str) for each in members) else None


def _can_be_on(what: object) -> bool:
    return 400 <= what <= 599 if isinstance(what, int) else what in _KINDS
