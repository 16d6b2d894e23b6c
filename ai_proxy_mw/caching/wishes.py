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
    rb"([!#$%&'*+.^_`|~0-9a-z-]+)"  # a token, in small letters
    rb'(?:[ \t]*=[ \t]*(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|([^\s,"]*+)))?+'
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
    lines = [value for name, value in raw_headers if name == b"cache-control"]
    if not lines:
        return NONE
    header = b",".join(lines).lower()
    return _parsed(header) if len(header) <= _LONGEST else _HANDS_OFF


def _parsed(header: bytes) -> Wishes:
    asked: dict[bytes, bytes] = {}
    for name, quoted, plain in _DIRECTIVE.findall(header):
        asked.setdefault(name, quoted or plain)
    max_age = _seconds(asked.get(b"max-age"))
    return Wishes(
        no_store=b"no-store" in asked,
        no_cache=b"no-cache" in asked,
        only_if_cached=b"only-if-cached" in asked,
        # A number that cannot be read lets nothing pass (RFC 9111, section 4.2.1).
        max_age=0 if max_age is None and b"max-age" in asked else max_age,
        min_fresh=_seconds(asked.get(b"min-fresh")),
        max_stale=MOST_SECONDS
        if asked.get(b"max-stale") == b""
        else _seconds(asked.get(b"max-stale")),
    )


def _seconds(text: bytes | None) -> int | None:
    if text is None or not text.isdigit():
        return None
    digits = text.lstrip(b"0")
    return MOST_SECONDS if len(digits) > 10 else min(int(digits or b"0"), MOST_SECONDS)
