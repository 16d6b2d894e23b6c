"""Codings of request bodies, each undone under a cap."""

from __future__ import annotations

import gzip
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from ai_proxy_mw._errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from ai_proxy_mw.schema.unpack import unpack

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}
CONTENT = bytes(range(256)) * 4000


@pytest.mark.parametrize("coding", PACKERS)
def test_what_was_packed_is_unpacked(coding: str) -> None:
    for content in (CONTENT, b"x", b""):
        packed = PACKERS[coding](content)
        assert unpack(packed, f" {coding.upper()} ", len(content)) == content
    with pytest.raises(PayloadTooLarge):
        unpack(PACKERS[coding](CONTENT), coding, len(CONTENT) - 1)


@pytest.mark.parametrize("coding", PACKERS)
def test_what_is_not_just_that_is_refused(coding: str) -> None:
    packed = PACKERS[coding](CONTENT)
    for wrong in (b"", b"nonsense", packed[:-1], packed + b"x", packed + packed, b"x" + packed):
        with pytest.raises(InvalidRequest) as caught:
            unpack(wrong, coding, 10 * len(CONTENT))
        assert caught.value.code == "invalid_content_encoding"


@pytest.mark.parametrize("coding", PACKERS)
def test_a_bomb_takes_little_memory(coding: str) -> None:
    bomb = PACKERS[coding](bytes(50_000_000))
    assert len(bomb) < 60_000
    tracemalloc.start()
    with pytest.raises(PayloadTooLarge):
        unpack(bomb, coding, 1000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 9_000_000


def test_no_coding_leaves_the_body_alone() -> None:
    assert unpack(CONTENT, "", 1) is CONTENT
    assert unpack(CONTENT, "identity", 1) is CONTENT


@pytest.mark.parametrize("coding", ["compress", "gzip, gzip", "br", "zstd"])
def test_what_is_not_installed_or_known_is_415(
    coding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("brotli", "zstandard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnsupportedMediaType, match="with gzip or deflate, or without one"):
        unpack(b"x", coding, 9)
