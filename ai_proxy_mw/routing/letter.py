"""What is sent by one lane, where that is not just what came."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy_mw._config import Timeouts
    from ai_proxy_mw._incoming import RequestBody
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.schema.call import Call

_STEPS = ("connect", "pool", "write", "first_byte")


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """path: what stands before the endpoint's. headers: further lines. rewritten: whether the
    body is not the caller's own bytes.
    """

    body: bytes | RequestBody = field(repr=False)
    path: str
    timeouts: Timeouts
    headers: RawHeaders = field(repr=False)
    rewritten: bool


def with_model(
    call: Call | None, body: bytes | RequestBody, model: str | None
) -> bytes | RequestBody:
    """The body that asks for this model; the same bytes where it does already."""
    if call is None or model is None or call.model == model:
        return body
    return call.replace(model=model).body()


def within(timeouts: Timeouts, seconds: float | None) -> Timeouts:
    """The same patience, but no more than `seconds` with any step until the answer begins."""
    steps = {name: getattr(timeouts, name) for name in _STEPS}
    if seconds is None or seconds >= max(steps.values()):
        return timeouts
    most = max(seconds, 0.001)
    return replace(timeouts, **{name: min(value, most) for name, value in steps.items()})
