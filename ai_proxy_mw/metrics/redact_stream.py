"""Secrets that are said a few letters at a time, over many events of a stream."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from ai_proxy_mw.metrics.redact import Span, secrets_in, without

_EVENT = re.compile(rb"[^\r\n]++")
# What the APIs call the next letters of a text. One that the cut has left open counts, too.
_PIECE = re.compile(
    rb'"(content|text|delta|arguments|partial_json|thinking|reasoning|reasoning_content|refusal'
    rb'|transcript|summary|input|data)"\s*+:\s*+"((?:[^"\\]|\\.)*+)'
)
_INDEX = re.compile(rb'index"\s*+:\s*+([0-9]{1,9})')


def redact_stream(data: bytes, *, whole: bool = True) -> bytes:
    """An answer, or its beginning, without secrets, also those that several events share.

    It may be no event stream: then there is little to put together.
    """
    found = secrets_in(data, whole=whole)
    for pieces in _texts(data):
        found += _shared(data, pieces, whole=whole)
    return without(data, found)


def _texts(data: bytes) -> Iterator[list[Span]]:
    """The pieces of each text: there may be several at a time, which have numbers."""
    texts: dict[tuple[bytes, bytes], list[Span]] = {}
    for event in _EVENT.finditer(data):
        # One word: to look at each of them for each piece takes minutes, where there are many.
        numbers = b",".join(_INDEX.findall(event[0]))
        for piece in _PIECE.finditer(data, *event.span()):
            texts.setdefault((piece[1], numbers), []).append(piece.span(2))
    yield from texts.values()


def _shared(data: bytes, pieces: list[Span], *, whole: bool) -> Iterator[Span]:
    """Where in the pieces the secrets of the text are that they are together."""
    begins, length = [], 0
    for start, end in pieces:
        begins.append(length)
        length += end - start
    text = b"".join(data[start:end] for start, end in pieces)
    for first, last in secrets_in(text, whole=whole):
        at = bisect_right(begins, first) - 1
        while at < len(pieces) and begins[at] < last:
            start, end = pieces[at]
            yield start + max(0, first - begins[at]), min(end, start + last - begins[at])
            at += 1
