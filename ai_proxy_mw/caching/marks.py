"""What an answer says of the cache: `Cache-Status` (RFC 9211), and `X-Cache` for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

_NAME = b"ai_proxy_mw"


def hit(*, age: float, ttl: float) -> RawHeaders:
    """From the cache; a `ttl` below 0 says for how long it has been stale."""
    return [
        (b"age", b"%d" % max(0, age)),
        (b"cache-status", b"%b; hit; ttl=%d" % (_NAME, ttl)),
        (b"x-cache", b"HIT"),
    ]


def stale_for_error(*, age: float, ttl: float) -> RawHeaders:
    """From the cache, since who was asked for a newer one has failed."""
    return [
        (b"age", b"%d" % max(0, age)),
        (b"cache-status", b'%b; fwd=stale; ttl=%d; detail="stale-if-error"' % (_NAME, ttl)),
        (b"x-cache", b"HIT"),
    ]


def miss(why: str, *, stored: bool) -> RawHeaders:
    """From upstream; `why` as RFC 9211, section 2.2 has it. `stored`: if it comes whole."""
    end = b"; stored" if stored else b""
    return [
        (b"cache-status", b"%b; fwd=%b%b" % (_NAME, why.encode("ascii"), end)),
        (b"x-cache", b"MISS"),
    ]


def collapsed() -> RawHeaders:
    """From the call upstream of another who asks the same."""
    return [(b"cache-status", b"%b; fwd=miss; collapsed" % _NAME), (b"x-cache", b"COLLAPSED")]


BYPASS: RawHeaders = [(b"cache-status", b"%b; fwd=bypass" % _NAME), (b"x-cache", b"BYPASS")]
"""Not for the cache."""
