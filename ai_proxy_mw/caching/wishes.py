"""What a caller asks of a cache (RFC 9111, section 5.2.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

MOST_SECONDS = 2**31
"""What larger numbers count as (RFC 9111, section 1.2.2)."""

_LONGEST = 4096
"""Bytes of header lines that are read."""

_DIRECTIVE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9a-z-]++)"  # a token, in small letters
    rb'(?:[ \t]*+=[ \t]*+("[^"\\]*+(?:\\.[^"\\]*+)*+"|[^\s,"]*+))?+'
)


class Wishes(NamedTuple):
    """`no_store`: keep nothing. `no_cache`: ask upstream. `only_if_cached`: do not ask upstream.

    max_age: seconds that an answer may be old at most. min_fresh: seconds that it shall still be
    fresh. max_stale: seconds that it may have been stale.
    """

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    min_fresh: int | None = None
    max_stale: int | None = None


NONE = Wishes()
_HANDS_OFF = Wishes(no_store=True, no_cache=True)


def wishes_of(raw_headers: RawHeaders) -> Wishes:
    """What the `Cache-Control` lines of a request ask for.

    Of a directive that is there twice the first counts. More than any client sends is not read:
    then nothing is kept and nothing comes out of the cache.
    """
    for line in raw_headers:
        if line[0] == b"cache-control":
            break
    else:
        return NONE
    header = b",".join(value for name, value in raw_headers if name == b"cache-control").lower()
    return _parsed(header) if len(header) <= _LONGEST else _HANDS_OFF


def _parsed(header: bytes) -> Wishes:
    asked: dict[bytes, bytes | None] = {}
    for directive in _DIRECTIVE.finditer(header):
        asked.setdefault(directive[1], directive[2])
    bare = b"max-stale" in asked and asked[b"max-stale"] is None
    return Wishes(
        no_store=b"no-store" in asked,
        no_cache=b"no-cache" in asked,
        only_if_cached=b"only-if-cached" in asked,
        # A number that cannot be read lets nothing pass (RFC 9111, section 4.2.1).
        max_age=(_seconds(asked[b"max-age"]) or 0) if b"max-age" in asked else None,
        min_fresh=_seconds(asked.get(b"min-fresh")),
        max_stale=MOST_SECONDS if bare else _seconds(asked.get(b"max-stale")),
    )


def _seconds(argument: bytes | None) -> int | None:
    text = (argument or b"").strip(b'"')
    if not text.isdigit():
        return None
    digits = text.lstrip(b"0")
    return MOST_SECONDS if len(digits) > 10 else min(int(digits or b"0"), MOST_SECONDS)
