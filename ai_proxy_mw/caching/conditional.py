"""Answers that a caller has already: `ETag` and `If-None-Match` (RFC 9110, section 13.1.2)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from ai_proxy_mw._http import Response

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_LONGEST = 8192

# RFC 9110, section 15.4.5, and what this answer says of the cache.
_OF_304 = frozenset({b"age", b"cache-control", b"cache-status", b"etag", b"vary", b"x-cache"})


def conditional(asked: RawHeaders, response: Response, body: bytes) -> Response:
    """The response with an ETag, or 304 in its place for a caller who has it already.

    asked: the request's header lines. body: all of the response's.
    """
    tag = _tag_of(response.headers)
    if tag is None:
        tag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode("ascii")
        response.headers.append((b"etag", tag))
    if not _has(asked, tag):
        return response
    return Response(304, [line for line in response.headers if line[0] in _OF_304])


def _tag_of(headers: RawHeaders) -> bytes | None:
    for name, value in headers:
        if name == b"etag":
            return value
    return None


def _has(asked: RawHeaders, tag: bytes) -> bool:
    lines = [value for name, value in asked if name == b"if-none-match"]
    header = b",".join(lines)
    if not lines or len(header) > _LONGEST:
        return False
    # Compared weakly: it is the meaning that counts.
    return header.strip() == b"*" or tag.removeprefix(b"W/") in _TAG.findall(header)
