"""What the upstream of the fault matrix answers when it is well, and the odd things it says."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

QUESTION = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hello there"}],
    "max_tokens": 50,
}

ASKED = 100
"""Tokens of the question, by the estimate that the proxies of the matrix are given."""

_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}

MEBIBYTE = 1 << 20


def answer(text: str = "Good day, Zoë ✓") -> bytes:
    """A whole JSON answer that tells its usage."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    whole = {"id": "c", "object": "chat.completion", "choices": [choice], "usage": _USAGE}
    return json.dumps(whole, ensure_ascii=False).encode()


def delta(text: str) -> bytes:
    """A piece of a stream, as data without the lines around it."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    piece = {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}
    return json.dumps(piece, ensure_ascii=False, separators=(",", ":")).encode()


def events(*data: bytes, end: bytes = b"\n") -> bytes:
    return b"".join(b"data: %b%b%b" % (each, end, end) for each in data)


_LAST = json.dumps({"id": "c", "choices": [], "usage": _USAGE}, separators=(",", ":")).encode()
PIECES = (delta("Good day, "), delta("Zoë ✓"), _LAST, b"[DONE]")

JSON = answer()
STREAM = events(*PIECES)
FIRST_EVENT = events(PIECES[0])

ERROR = b'{"error":{"message":"out of order","type":"server_error","param":null,"code":"broken"}}'
PAGE = b"<!doctype html><title>502 Bad Gateway</title><h1>Bad Gateway</h1>"
GIANT = events(delta("x" * (2 * MEBIBYTE)), *PIECES[1:])


def much(stream: bool, size: int) -> Iterator[bytes]:
    """An answer of `size` bytes of text, in pieces of a mebibyte."""
    if stream:
        piece = events(delta("x" * 1000))
        for _ in range(size // MEBIBYTE):
            yield piece * (MEBIBYTE // len(piece))
        yield STREAM
        return
    before, _, after = answer("TEXT").partition(b"TEXT")
    yield before
    for _ in range(size // MEBIBYTE):
        yield b"x" * MEBIBYTE
    yield after


@functools.cache
def packed(stream: bool, size: int) -> bytes:
    """The same with gzip, packed as tightly as it goes and never held whole."""
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    return b"".join([*map(packer.compress, much(stream, size)), packer.flush()])


class Fingerprint(NamedTuple):
    """Enough of a long body to know it again."""

    size: int
    digest: str


def fingerprint(pieces: Iterable[bytes]) -> Fingerprint:
    size, digest = 0, sha256()
    for piece in pieces:
        size += len(piece)
        digest.update(piece)
    return Fingerprint(size, digest.hexdigest())


@functools.cache
def fingerprint_of_much(stream: bool, size: int) -> Fingerprint:
    return fingerprint(much(stream, size))
