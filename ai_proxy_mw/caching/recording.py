"""Makes an entry of an answer that has come, if it is one to keep."""

from __future__ import annotations

import asyncio
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from ai_proxy_mw._errors import ProxyError
from ai_proxy_mw.caching.complete import is_whole
from ai_proxy_mw.caching.entry import KEPT_HEADERS, Entry, content_type_of
from ai_proxy_mw.caching.replay import coding_of
from ai_proxy_mw.schema.unpack import unpack

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.caching.flight import Flight, Head
    from ai_proxy_mw.caching.policy import Plan

_LONG_WORK = 64 * 1024
"""Bytes from which on an answer is judged in a thread: a millisecond of the loop of all calls."""

# What another model has answered is given for want of the right one, and a list in part for want
# of the rest; neither for longer than need be.
_FOR_WANT = frozenset({b"x-ai-proxy-model", b"x-ai-proxy-partial"})

# Something else than the answer that was asked for: a promise, nothing, a part.
_NOT_KEPT = (202, 204, 206)


class Term(NamedTuple):
    """created: seconds since the epoch. ttl, keep: as of an Entry."""

    created: float
    ttl: float
    keep: float


def may_be_kept(head: Head) -> bool:
    """Whether an answer that begins so can be one to keep."""
    return (
        200 <= head.status <= 299
        and head.status not in _NOT_KEPT
        and _FOR_WANT.isdisjoint([name for name, _ in head.headers])
    )


async def recorded(flight: Flight, plan: Plan, term: Term, *, most: int) -> Entry | None:
    """The entry of an answer that has ended; None for one that is not to be kept.

    most: bytes that it may have, its coding taken off.
    """
    head = flight.head
    assert head is not None
    if not may_be_kept(head):
        return None
    body = b"".join(flight.pieces)
    coding = coding_of(head.headers)
    if len(body) > _LONG_WORK or coding:
        plain = await asyncio.to_thread(_judged, head, coding, plan.endpoint, body, most)
    else:
        plain = _judged(head, coding, plan.endpoint, body, most)
    if plain is None:
        return None
    return Entry(
        key=plan.key,
        created=term.created,
        ttl=term.ttl,
        keep=term.keep,
        status=head.status,
        headers=_kept(head, coding),
        event_stream=head.event_stream,
        endpoint=plan.endpoint,
        model=plan.model,
        ends=list(accumulate(map(len, flight.pieces))) if head.event_stream else [],
        times=flight.times if head.event_stream else [],
        body=plain,
        aside=list(flight.aside),
    )


def _judged(head: Head, coding: bytes, endpoint: str, body: bytes, most: int) -> bytes | None:
    """The answer without its coding, if it is whole."""
    if coding:
        try:
            body = unpack(body, coding.decode("latin-1"), most)
        except ProxyError:
            return None
    return body if is_whole(endpoint, content_type_of(head.headers), body) else None


def _kept(head: Head, coding: bytes) -> RawHeaders:
    """An ETag is of the bytes as they came: of a coding that is taken off it is not kept."""
    lines = [line for line in head.headers if line[0] in KEPT_HEADERS]
    if coding in (b"", b"identity"):
        return lines
    return [line for line in lines if line[0] != b"etag"]
