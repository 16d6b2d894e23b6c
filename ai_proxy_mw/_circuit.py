"""When an upstream is left alone for a while."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ai_proxy_mw._errors import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Circuit:
    """When calls stop going to an upstream that fails, for each of its keys; times in seconds.

    ratio: of the calls of the last `window` seconds that must have failed, above 0 and up to 1.
    calls: how many calls there must have been, so that one that fails on a quiet day is not all.
    window: how long a call counts.
    open_for: until it is tried again. Doubled each time that is in vain, up to `longest`.
    longest: the most that it is left alone, also where its `Retry-After` says more.
    probes: how many calls try it at a time. One that goes well opens the way for all.

    Raises ConfigurationError.
    """

    ratio: float = 0.5
    calls: int = 20
    window: float = 30.0
    open_for: float = 10.0
    longest: float = 300.0
    probes: int = 1

    def __post_init__(self) -> None:
        if not _is_positive(self.ratio) or self.ratio > 1:
            raise ConfigurationError(
                f"Circuit(ratio={self.ratio!r}): write a number above 0 and up to 1"
            )
        for name in ("window", "open_for", "longest"):
            if not _is_positive(getattr(self, name)):
                raise ConfigurationError(
                    f"Circuit({name}={getattr(self, name)!r}): write a number of seconds above 0"
                )
        for name in ("calls", "probes"):
            number = getattr(self, name)
            if type(number) is not int or number < 1:
                raise ConfigurationError(f"Circuit({name}={number!r}): write a whole number from 1")
        if self.longest < self.open_for:
            raise ConfigurationError(
                f"Circuit(open_for={self.open_for!r}, longest={self.longest!r}): "
                "write a longest that is at least open_for"
            )


def _is_positive(number: object) -> bool:
    return type(number) in (int, float) and 0 < number < math.inf  # type: ignore[operator]  # its type is seen
