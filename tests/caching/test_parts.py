"""Parts of answers in the store: what is damaged or planted there is never one of them."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import pytest

from ai_proxy_mw._errors import UpstreamBusy, UpstreamTimeout
from ai_proxy_mw.caching.parts import Part, decode, encode, part_key, retold, told, wanted_key

KEY = "p:12345678:aa:owner:0"
PART = Part(
    0,
    [b"data: a\n\n", b"\x00\xff"],
    head=(200, [(b"content-type", b"text/event-stream; a=\xe9\t")], True),
    failed=(502, "code", "message", 3),
)


def packed(content: Any, key: str = KEY) -> bytes:
    """With a good checksum, whatever it is."""
    data = content if isinstance(content, bytes) else msgspec.msgpack.encode(content)
    return b"aiP1" + zlib.crc32(data, zlib.crc32(key.encode())).to_bytes(4, "big") + data


def test_what_is_encoded_is_decoded() -> None:
    assert decode(KEY, encode(KEY, PART)) == PART
    assert decode(KEY, encode(KEY, Part(7, [], whole=True))) == Part(7, [], whole=True)
    assert decode(KEY, packed([0, [], [200, [], True], False, None])) is not None


def test_nothing_is_no_part() -> None:
    assert decode(KEY, None) is None
    assert decode(KEY, b"") is None
    assert decode(KEY, b"1") is None


def test_any_bit_that_flips_is_seen() -> None:
    good = encode(KEY, PART)
    for place in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            assert decode(KEY, bytes(bad)) is None, (place, bit)
    for length in range(len(good)):
        assert decode(KEY, good[:length]) is None


def test_a_part_under_the_key_of_another_is_none() -> None:
    data = encode(KEY, PART)
    assert decode("p:12345678:bb:owner:0", data) is None
    assert decode("p:12345678:aa:owner:1", data) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        [],
        "text",
        [0, "text"],
        [0, ["text"]],
        ["0", []],
        [0, [], [200, [["name", "text"]], True]],
        [0, [], None, "yes"],
        [0, [], None, False, ["502", "", "", None]],
    ],
)
def test_what_is_no_part_is_none(content: Any) -> None:
    assert decode(KEY, packed(content)) is None


@pytest.mark.parametrize("status", [-200, 0, 99, 100, 101, 199, 600, 2**40])
def test_no_absurd_status(status: int) -> None:
    assert decode(KEY, packed([0, [], [status, [], True]])) is None


@pytest.mark.parametrize(
    "line",
    [
        (b"x-a", b"1\r\nset-cookie: a=b"),
        (b"x-a", b"1\n"),
        (b"x-a", b"\x00"),
        (b"x-a", b"\x7f"),
        (b"x-a\r\n", b"1"),
        (b"x-a\n", b"1"),
        (b"x a", b"1"),
        (b"X-A", b"1"),
        (b"", b"1"),
        (b"x:a", b"1"),
    ],
)
def test_no_line_that_is_none_or_two(line: tuple[bytes, bytes]) -> None:
    assert decode(KEY, packed([0, [], [200, [(b"x-b", b"1"), line], True]])) is None


def test_errors_are_told_as_they_are() -> None:
    for error in (UpstreamBusy(), UpstreamTimeout("idle")):
        again = retold(told(error))
        assert (again.status, again.body()) == (error.status, error.body())
        assert again.headers() == error.headers()


@pytest.mark.parametrize("status", [-1, 0, 200, 301, 499, 600])
def test_an_error_is_one_of_the_upstream(status: int) -> None:
    assert retold((status, "code", "message", None)).status == 502


@pytest.mark.parametrize("seconds", [-1, 10**12])
def test_an_absurd_time_to_wait_is_left_out(seconds: int) -> None:
    assert retold((503, "code", "message", seconds)).headers() == []


def test_keys_are_of_one_answer_of_one_owner() -> None:
    names = {
        of(key, owner)
        for key in ("e:app:1", "e:app:2")
        for owner in ("a", "b")
        for of in (wanted_key, lambda k, o: part_key(k, o, 1), lambda k, o: part_key(k, o, 11))
    }
    assert len(names) == 12
    assert not any(name.startswith("e:") for name in names)
