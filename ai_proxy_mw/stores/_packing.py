"""How an answer and its tags lie in a store that keeps one run of bytes for each key.

    byte 0       version in the upper half, coding in the lower
    bytes 1-2    how long the tags are
    bytes 3-6    how long the value is, before it was compressed
    then         the tags, a line each; then the value

Whoever else can write to the store may have planted what is read here: no length in it is
believed beyond the bound, and what does not fit together is nothing found.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

_VERSION = 1
_PLAIN, _ZLIB, _ZSTD = range(3)
_HEAD = struct.Struct(">BHI")
_LONGEST_TAGS = 0xFFFF

HEAD = _HEAD.size
"""Bytes before the tags."""

LARGEST = 0xFFFFFFFF
"""Bytes that a value can have in this form."""


class Head(NamedTuple):
    """What is written before the tags and the value.

    coding: of the value. tags: where they end. size: of the value as it was.
    """

    coding: int
    tags: int
    size: int

    @property
    def is_compressed(self) -> bool:
        return self.coding != _PLAIN


def head_of(data: bytes) -> Head | None:
    """The head of what is stored, or of its first bytes; None for what another version wrote."""
    if len(data) < HEAD:
        return None
    first, tags, size = _HEAD.unpack_from(data)
    version, coding = divmod(first, 16)
    if version != _VERSION or coding > _ZSTD:
        return None
    return Head(coding, HEAD + tags, size)


def tags_in(data: bytes, head: Head) -> list[str]:
    """The tags, of the bytes up to `head.tags` or more."""
    return data[HEAD : head.tags].decode("utf-8", "replace").split("\n")


def pack(value: bytes, tags: Sequence[str], *, compress_above: int) -> bytes | None:
    """A value in this form, compressed if that makes it smaller; None if its tags are too long."""
    lines = "\n".join(tags).encode()
    if len(lines) > _LONGEST_TAGS:
        return None
    coding, body = _PLAIN, value
    if len(value) > compress_above:
        coding, body = _smaller(value)
    return b"".join((_HEAD.pack(_VERSION * 16 + coding, len(lines), len(value)), lines, body))


def unpack(data: bytes, head: Head) -> bytes | None:
    """The value; None for what is cut, broken, or of a coding that is not installed here.

    Takes no more memory than the head's `size`, which is the caller's to judge.
    """
    if not head.is_compressed:
        value = data[head.tags :]
        return value if len(value) == head.size else None
    body = memoryview(data)[head.tags :]
    return (_inflated if head.coding == _ZLIB else _unfrozen)(body, head.size)


def _smaller(value: bytes) -> tuple[int, bytes]:
    library = _zstd()
    if library is None:
        # Level 1: of JSON it leaves a fifth more than 6 does, in a third of the time.
        coding, body = _ZLIB, zlib.compress(value, 1)
    else:
        coding, body = _ZSTD, library.ZstdCompressor().compress(value)
    return (coding, body) if len(body) < len(value) else (_PLAIN, value)


def _inflated(body: memoryview, size: int) -> bytes | None:
    inflater = zlib.decompressobj()
    try:
        value = inflater.decompress(body, size + 1)
    except zlib.error:
        return None
    whole = inflater.eof and not inflater.unused_data and not inflater.unconsumed_tail
    return value if whole and len(value) == size else None


def _unfrozen(body: memoryview, size: int) -> bytes | None:
    library = _zstd()
    if library is None:
        return None
    try:
        # A frame says how large it gets, and the library allocates what it says.
        if library.frame_content_size(body) != size:
            return None
        value: bytes = library.ZstdDecompressor().decompress(body, allow_extra_data=False)
    except library.ZstdError:
        return None
    return value


@cache
def _zstd() -> Any:
    """The package, or None; an import that fails looks through all of the path each time."""
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        return None
