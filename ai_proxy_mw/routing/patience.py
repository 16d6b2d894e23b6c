"""How long to wait, as the upstream and the caller say it."""

from __future__ import annotations

import re
from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

LONGEST = 86400.0
"""Seconds; a longer time is as good as this one: nobody waits for it."""

_NUMBER = re.compile(rb"[0-9]{1,40}(?:\.[0-9]{0,40})?")
_DATE = re.compile(rb"[A-Za-z0-9 ,:+-]{8,40}")


def retry_after(headers: RawHeaders, now: float) -> float | None:
    """Seconds that an answer asks to wait for; `now` is the time of day, as time.time() has it.

    `retry-after-ms` is exact and so goes before `Retry-After` (RFC 9110, section 10.2.3).
    """
    milliseconds = _number(headers, b"retry-after-ms")
    if milliseconds is not None:
        return min(milliseconds / 1000, LONGEST)
    value = _first(headers, b"retry-after")
    if value is None:
        return None
    if _NUMBER.fullmatch(value):
        return min(float(value), LONGEST)
    at = _moment(value)
    return None if at is None else min(max(at - now, 0.0), LONGEST)


def should_retry(headers: RawHeaders) -> bool | None:
    """What `x-should-retry` says, as OpenAI and Anthropic send it."""
    value = _first(headers, b"x-should-retry")
    return None if value is None else {b"true": True, b"false": False}.get(value.lower())


def client_patience(headers: RawHeaders) -> float | None:
    """Seconds after which the caller hangs up, as the official SDKs tell it.

    0 says nothing: it is written for less than a second, and for no bound at all.
    """
    told = [
        seconds
        for name in (b"x-stainless-timeout", b"x-stainless-read-timeout")
        if (seconds := _number(headers, name))
    ]
    return min(*told, LONGEST) if told else None


def _first(headers: RawHeaders, name: bytes) -> bytes | None:
    for candidate, value in headers:
        if candidate == name:
            return value.strip(b" \t")
    return None


def _number(headers: RawHeaders, name: bytes) -> float | None:
    value = _first(headers, name)
    return float(value) if value is not None and _NUMBER.fullmatch(value) else None


def _moment(value: bytes) -> float | None:
    """An HTTP-date in any of its three forms (RFC 9110, section 5.6.7), as seconds since 1970."""
    if not _DATE.fullmatch(value):
        return None  # the parser takes much more than dates, and some of it at length
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - dates are rare here

    try:
        at = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    # The oldest form names no zone; it would be taken for that of this machine.
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
