"""The app's own look at a call before it goes upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import ConfigurationError

if TYPE_CHECKING:
    from ai_proxy_mw.schema.call import Call

Check = Callable[["Call"], "Call | Awaitable[Call | None] | None"]
"""A function, sync or async, of the call: None lets it pass as it is, another call is sent in its
place, and raising `Refused` answers 400."""


def checks_of(given: Iterable[Check]) -> tuple[Check, ...]:
    """The checks that were written. Raises ConfigurationError."""
    checks = () if callable(given) else tuple(given)
    if callable(given) or not all(callable(check) for check in checks):
        raise ConfigurationError("checks: write a list of functions of the call, sync or async")
    return checks
