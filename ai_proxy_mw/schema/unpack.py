"""Takes the coding off a request body, under a cap."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ai_proxy_mw._errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType


def unpack(body: bytes, coding: str, limit: int) -> bytes:
    """The body without its Content-Encoding (RFC 9110, section 8.4), of `limit` bytes at most.

    gzip and deflate; br and zstd where the packages `brotli` (1.2 or newer, which can be told when
    to stop) and `zstandard` are installed. Raises UnsupportedMediaType, PayloadTooLarge and
    InvalidRequest.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return body
    maker = _MAKERS.get(name)
    make = None if maker is None else maker()
    if make is None:
        raise UnsupportedMediaType(
            f"The request body has a Content-Encoding that is not taken here; send it with "
            f"{' or '.join(_taken())}, or without one.",
            code="unsupported_content_encoding",
        )
    return make(body, limit)


def _taken() -> list[str]:
    return [name for name, maker in _MAKERS.items() if name != "x-gzip" and maker() is not None]


_ZSTD_STEP = 128
"""Bytes at once: each 4 of them may become a block of 128 KiB."""

Unpack = Callable[[bytes, int], bytes]


def _zlib(window: int) -> Callable[[], Unpack]:
    def inflate(body: bytes, limit: int) -> bytes:
        inflater = zlib.decompressobj(window)
        try:
            # One byte more than may be, so that too much is seen.
            content = inflater.decompress(body, limit + 1)
        except zlib.error:
            raise _broken() from None
        if len(content) > limit:
            raise PayloadTooLarge(limit)
        if not inflater.eof or inflater.unused_data:
            raise _broken()
        return content

    return lambda: inflate


def _brotli() -> Unpack | None:
    module = _module("brotli")
    if module is None:
        return None

    def inflate(body: bytes, limit: int) -> bytes:
        inflater = module.Decompressor()
        content = bytearray()
        try:
            while len(content) <= limit and not inflater.is_finished():
                room = limit + 1 - len(content)
                more = inflater.process(b"" if content else body, output_buffer_limit=room)
                if not more and not inflater.is_finished():
                    raise _broken()
                content += more
        except module.error:
            raise _broken() from None
        if len(content) > limit:
            raise PayloadTooLarge(limit)
        return bytes(content)

    return inflate


def _zstd() -> Unpack | None:
    module = _module("zstandard")
    if module is None:
        return None

    def inflate(body: bytes, limit: int) -> bytes:
        # RFC 8878, section 3.1.1.1.2: more than 8 MB of memory need not be given.
        inflater = module.ZstdDecompressor(max_window_size=8 * 1024 * 1024).decompressobj()
        content = bytearray()
        try:
            for at in range(0, len(body), _ZSTD_STEP):
                if inflater.eof:
                    raise _broken()
                content += inflater.decompress(body[at : at + _ZSTD_STEP])
                if len(content) > limit:
                    raise PayloadTooLarge(limit)
        except module.ZstdError:
            raise _broken() from None
        if not inflater.eof or inflater.unused_data:
            raise _broken()
        return bytes(content)

    return inflate


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


def _broken() -> InvalidRequest:
    return InvalidRequest(
        "The request body is not of the Content-Encoding that it is said to be.",
        code="invalid_content_encoding",
    )


_MAKERS: dict[str, Callable[[], Unpack | None]] = {
    "gzip": _zlib(16 + zlib.MAX_WBITS),
    "x-gzip": _zlib(16 + zlib.MAX_WBITS),
    "deflate": _zlib(zlib.MAX_WBITS),
    "br": _brotli,
    "zstd": _zstd,
}
