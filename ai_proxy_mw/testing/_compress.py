"""gzip as providers apply it: whole for JSON, flushed event by event for streams."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

from ai_proxy_mw.testing._answer import Answer

_GZIP_WINDOW = 31  # zlib's way to ask for a gzip frame


def compress(answer: Answer) -> None:
    """Compress a text answer in place; others stay as they are."""
    if not answer.text:
        return
    body = answer.body
    answer.body = gzip.compress(body, mtime=0) if isinstance(body, bytes) else _flushed(body)
    answer.headers += [(b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]


def _flushed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=_GZIP_WINDOW)
    for piece in pieces:
        yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()
