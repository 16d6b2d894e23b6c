"""What in a body looks like a secret, and the body without it.

Works on bytes, as they were sent, so that it does for JSON, event streams, forms and text alike,
and for bodies of which only the beginning is there. It goes by shapes and names, so that it finds
the usual ones and no others; where in doubt it takes out too much.

Whoever sends a body chooses what is in it. So each part here looks at each byte a bounded number
of times: `find` and `translate` do most, and no pattern is tried from each place of a long run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ai_proxy_mw.metrics.redact_named import named_values

Span = tuple[int, int]

MARK = b"[redacted]"

_IN_WORDS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+/=.\\~"
_SHAPE = bytes(ord("x") if each in _IN_WORDS else ord(" ") for each in range(256))
_LONG = b"x" * 12  # what is shorter is no key
_PLAIN = bytes(each for each in _IN_WORDS if not (chr(each).isupper() or chr(each).isdigit()))
"""A word of these alone is none, either, and most long words are."""

# Real keys have a digit or a capital near their beginning, which tells them from words with
# hyphens. What stands before is not asked, since it may be the `n` of an escaped line end.
_KEY = re.compile(
    rb"(?:[sr]k-|[sr]k_(?:live|test)_|sk_(?=[0-9a-f]{32})|AIza|ya29\.|gh[oprsu]_|github_pat_|glpat-|xox[abeoprs]-|xapp-|AKIA|ASIA|hf_"
    rb"|gsk_|xai-|pplx-|nvapi-|fw_|tgp_v1_|r8_|npm_|pypi-|whsec_|SG\.|eyJ)"
    rb"(?=[a-z_.-]{0,32}+[0-9A-Z])[A-Za-z0-9_.~+/=-]{8,}+"
)
# A run of base64, in either alphabet, with `/` and `+` as some JSON writers escape them. What else
# is escaped is no part of it.
_RUN = re.compile(
    rb"\\[nrtbf]|\\u(?!002[bBfF])[0-9a-fA-F]{4}|((?:[A-Za-z0-9+/_=-]++|\\/|\\u002[bBfF])++)"
)
_BLOB = 64
"""Ids of calls and answers have up to 55 characters, and are left."""
# Keys without a beginning of their own. What has one with a hyphen or `_` is an id, or a key above.
_OPAQUE = re.compile(
    rb"(?<![A-Za-z0-9_-])(?=[A-Za-z]*+[0-9])(?=[0-9]*+[A-Za-z])[A-Za-z0-9]{32,}+(?![_-])"
)

_DATA_URL = re.compile(rb";base64,((?:[A-Za-z0-9+/_=-]++|\\/|\\u002[bBfF])++)")
_USERINFO = re.compile(rb":(?://|\\/\\/)([^\s\"/?#@]{1,256}+)@")
_PEM = re.compile(rb"PRIVATE KEY(?: BLOCK)?-----(.*?)(?:-----END|\Z)", re.DOTALL)

# Letters, digits and signs but `"`: what may belong together, and so may be half of something.
_TOGETHER = bytes(each for each in range(0x21, 0x7F) if each != ord('"'))


def redact(data: bytes, *, whole: bool = True) -> bytes:
    """The body without its secrets. whole: False for the beginning of a longer one."""
    return without(data, secrets_in(data, whole=whole))


def without(data: bytes, spans: Iterable[Span]) -> bytes:
    """The body with a mark in the place of each span; these may overlap, in any order."""
    kept: list[bytes] = []
    end = 0
    for start, stop in sorted(spans):
        if start >= end:
            kept += (data[end:start], MARK)
        end = max(end, stop)
    return b"".join([*kept, data[end:]])


def secrets_in(data: bytes, *, whole: bool = True) -> list[Span]:
    """Where they are. Of what is not whole, the last word is one: it may be half a key."""
    found = [*_in_words(data), *named_values(data)]
    if b";base64," in data:
        found += (match.span(1) for match in _DATA_URL.finditer(data))
    if b"@" in data:
        found += (match.span(1) for match in _USERINFO.finditer(data))
    if b"PRIVATE KEY" in data:
        found += (match.span(1) for match in _PEM.finditer(data))
    if not whole:
        found.append((len(data.rstrip(_TOGETHER)), len(data)))
    return [(start, end) for start, end in found if start < end]


def _in_words(data: bytes) -> Iterator[Span]:
    """Keys and blobs, which are to be found in long words only."""
    shape = data.translate(_SHAPE)
    start = shape.find(_LONG)
    while start >= 0:
        end = shape.find(b" ", start)
        end = len(data) if end < 0 else end
        if data[start:end].translate(None, _PLAIN):
            yield from (match.span() for match in _KEY.finditer(data, start, end))
            if end - start >= 32:
                yield from _blobs(data, start, end)
        start = shape.find(_LONG, end)


def _blobs(data: bytes, start: int, end: int) -> Iterator[Span]:
    for run in _RUN.finditer(data, start, end):
        first, last = run.span(1)
        if last - first >= _BLOB:
            if run[1].translate(None, _PLAIN):  # and no line of ---- or ____
                yield first, last
        elif last - first >= 32:
            for match in _OPAQUE.finditer(run[1]):
                yield first + match.start(), first + match.end()
