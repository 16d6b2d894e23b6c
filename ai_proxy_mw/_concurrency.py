"""How many calls at a time, and how many may wait for how long."""

from __future__ import annotations

from dataclasses import dataclass, field

from ai_proxy_mw._errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most so many calls at a time in this process.

    limit: the most calls under way.
    queue: the most that wait for one of them to end; 0 turns away at once.
    wait: seconds that each of those waits at most.

    Raises ConfigurationError.
    """

    limit: int
    queue: int = field(default=100, kw_only=True)
    wait: float = field(default=2.0, kw_only=True)

    def __post_init__(self) -> None:
        if type(self.limit) is not int or self.limit < 1:
            raise ConfigurationError(
                f"Concurrency({self.limit!r}): write how many calls at a time, a number above 0"
            )
        if type(self.queue) is not int or self.queue < 0:
            raise ConfigurationError(
                f"Concurrency(queue={self.queue!r}): write how many may wait, 0 for none"
            )
        if (
            isinstance(self.wait, bool)
            or not isinstance(self.wait, int | float)
            or not 0 < self.wait < float("inf")
        ):
            raise ConfigurationError(
                f"Concurrency(wait={self.wait!r}): write a number of seconds above 0; if nobody "
                "shall wait, queue=0"
            )


def concurrency_of(given: int | Concurrency | None, name: str) -> Concurrency | None:
    """What was written for the argument `name`. Raises ConfigurationError."""
    if given is None or isinstance(given, Concurrency):
        return given
    if type(given) is not int or given < 1:
        raise ConfigurationError(
            f"{name}={given!r}: write a number above 0, or Concurrency(100, queue=50, wait=1)"
        )
    return Concurrency(given)
