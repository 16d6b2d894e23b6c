"""What became of one send that failed, as far as it matters for what is done next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import (
    UpstreamBusy,
    UpstreamDisconnected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ai_proxy_mw.routing.patience import retry_after, should_retry

if TYPE_CHECKING:
    from ai_proxy_mw._errors import UpstreamError
    from ai_proxy_mw._retry import Kind
    from ai_proxy_mw._types import RawHeaders

_WAITED_FOR: dict[str, Kind] = {"connect": "connect", "pool": "busy"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """what: the status of the answer, or the kind of failure (a `Kind`).

    may_have_worked: whether the upstream had the whole request and gave no answer.
    retry_after: seconds that the answer asks to wait for.
    should_retry: what the upstream says of it, if it does.
    """

    what: int | str
    may_have_worked: bool = False
    retry_after: float | None = None
    should_retry: bool | None = None


def of_answer(status: int, headers: RawHeaders, now: float) -> Outcome:
    """Of an answer; `now` is the time of day, as time.time() has it."""
    return Outcome(status, False, retry_after(headers, now), should_retry(headers))


def of_error(error: UpstreamError) -> Outcome:
    """Of an error that came in the place of an answer."""
    kind = _kind(error)
    return Outcome(kind, error.sent and kind not in ("connect", "busy"))


def _kind(error: UpstreamError) -> Kind:
    if isinstance(error, UpstreamTimeout):
        return _WAITED_FOR.get(error.waited_for, "timeout")
    if isinstance(error, UpstreamUnreachable):
        return "connect"
    if isinstance(error, UpstreamBusy):
        return "busy"
    return "reset" if isinstance(error, UpstreamDisconnected) else "bad_response"
