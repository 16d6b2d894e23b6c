"""What lies in a store: there and back, and what others may have planted."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from ai_proxy_mw.stores import _packing
from ai_proxy_mw.stores._packing import HEAD, head_of, pack, tags_in, unpack

MIB = 1024 * 1024
TEXT = b'{"choices":[{"message":{"role":"assistant","content":"Hi"}}]}' * 100


def planted(body: bytes, size: int, *, first: int, tags: int = 0) -> bytes:
    return struct.pack(">BHI", first, tags, size) + body


def read(data: bytes) -> bytes | None:
    head = head_of(data)
    return None if head is None else unpack(data, head)


@pytest.fixture
def without_zstd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    _packing._zstd.cache_clear()
    yield
    _packing._zstd.cache_clear()


TAG = st.text("abcdef:._-/", min_size=1)


@given(st.binary(max_size=300), st.lists(TAG), st.sampled_from([0, 100, 10_000]))
@example(TEXT, ["a"], 0)
@example(b"", [], 0)
def test_there_and_back(value: bytes, tags: list[str], above: int) -> None:
    data = pack(value, tags, compress_above=above)
    assert data is not None
    head = head_of(data[:HEAD])
    assert head is not None
    assert unpack(data, head) == value
    assert tags_in(data[: head.tags], head) == (tags or [""])
    assert len(data) <= head.tags + len(value)


@pytest.mark.parametrize("above", [len(TEXT) - 1, len(TEXT)])
def test_compressed_above_a_size(above: int) -> None:
    data = pack(TEXT, [], compress_above=above)
    assert data is not None
    assert (len(data) < len(TEXT)) == (above < len(TEXT))


def test_zlib_where_zstd_is_not_installed(without_zstd: None) -> None:
    data = pack(TEXT, ["a"], compress_above=0)
    assert data is not None
    assert len(data) < len(TEXT) / 4
    assert read(data) == TEXT
    _packing._zstd.cache_clear()


def test_what_zstd_wrote_is_nothing_found_without_it(request: pytest.FixtureRequest) -> None:
    data = pack(TEXT, [], compress_above=0)
    assert data is not None
    assert read(data) == TEXT
    request.getfixturevalue("without_zstd")
    assert read(data) is None


def test_tags_that_are_too_long_are_not_stored() -> None:
    assert pack(b"a", ["t" * 0xFFFF], compress_above=0) is not None
    assert pack(b"a", ["t" * 0x10000], compress_above=0) is None


@pytest.mark.parametrize("above", [0, 10_000])
def test_cut_anywhere_it_is_nothing_found(above: int) -> None:
    data = pack(TEXT, ["subject:a", "model:b"], compress_above=above)
    assert data is not None
    assert all(read(data[:end]) is None for end in range(len(data)))
    assert read(data + b"x") is None


def test_cut_anywhere_zlib_is_nothing_found(without_zstd: None) -> None:
    test_cut_anywhere_it_is_nothing_found(0)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x80\x04\x95" + bytes(100))
def test_garbage_raises_nothing(data: bytes) -> None:
    value = read(data)
    assert value is None or len(value) <= len(data) * 2000


@given(st.integers(0, 400), st.integers(0, 255), st.sampled_from([0, 10_000]))
def test_a_changed_byte_raises_nothing(place: int, byte: int, above: int) -> None:
    data = pack(TEXT, ["a"], compress_above=above)
    assert data is not None
    place %= len(data)
    read(data[:place] + bytes([byte]) + data[place + 1 :])


@pytest.mark.parametrize("first", [0x00, 0x20, 0x21, 0xF0, 0x13, 0x1F])
def test_another_version_or_coding_is_nothing_found(first: int) -> None:
    assert head_of(planted(b"abc", 3, first=first)) is None
    assert read(planted(b"abc", 3, first=0x10)) == b"abc"


@pytest.mark.parametrize("first", [0x11, 0x12])
def test_what_is_not_of_its_coding_is_nothing_found(first: int) -> None:
    assert read(planted(b"no such thing", 3, first=first)) is None


ZEROS = bytes(64 * MIB)
BOMBS: dict[str, Callable[[], bytes]] = {
    "zlib": lambda: planted(zlib.compress(ZEROS), 100, first=0x11),
    "zlib with a tail": lambda: planted(zlib.compress(b"a" * 100) + b"x", 100, first=0x11),
    "zstd": lambda: planted(zstandard.compress(ZEROS), 100, first=0x12),
    "zstd that hides its size": lambda: planted(
        zstandard.ZstdCompressor(write_content_size=False).compress(ZEROS), 100, first=0x12
    ),
    "zstd whose size is a lie": lambda: planted(
        zstandard.compress(bytes(99)).replace(bytes([99]), bytes([100]), 1), 100, first=0x12
    ),
    "zstd with a tail": lambda: planted(zstandard.compress(b"a" * 100) + b"x", 100, first=0x12),
    "zstd with another frame": lambda: planted(
        zstandard.compress(b"a" * 100) + zstandard.compress(ZEROS), 100, first=0x12
    ),
    "tags beyond the end": lambda: planted(b"", 0, first=0x11, tags=0xFFFF),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_nothing_found_and_take_no_room(bomb: str) -> None:
    data = BOMBS[bomb]()
    tracemalloc.start()
    try:
        assert read(data) is None
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
