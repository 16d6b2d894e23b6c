"""Entries and their bytes: whatever a store gives back, it is that entry or none."""

from __future__ import annotations

import math
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw.caching.entry import KEPT_HEADERS, Entry, decode, encode, frames, pieces

KEY = f"e:12345678:{'a' * 64}"


def entry(**changes: Any) -> Entry:
    made: dict[str, Any] = {
        "key": KEY,
        "created": 1_700_000_000.25,
        "ttl": 60.0,
        "status": 200,
        "headers": [(b"content-type", b"text/event-stream")],
        "endpoint": "POST /chat/completions",
        "model": "m",
        "body": b"data: a\n\ndata: b\n\n",
        "ends": [9, 18],
        "times": [0, 20],
        "event_stream": True,
    }
    return Entry(**{**made, **changes})


def packed(head: bytes, body: bytes = b"") -> bytes:
    """The bytes of an entry, whatever its head, as somebody may plant them."""
    rest = len(head).to_bytes(4, "big") + head + body
    return b"aipc\x01" + zlib.crc32(rest).to_bytes(4, "big") + rest


def head_of(made: Entry) -> list[Any]:
    """Without the body and what has come later."""
    return list(msgspec.structs.astuple(made))[:-2]


_FRAMES = st.lists(st.binary(min_size=1, max_size=5), max_size=5)


@given(
    parts=_FRAMES,
    headers=st.lists(
        st.tuples(st.sampled_from(sorted(KEPT_HEADERS)), st.just(b"a/b; c=\xe9\t")), max_size=3
    ),
    seconds=st.floats(0, 1e9),
    model=st.text(max_size=5),
    aside=st.lists(st.binary(max_size=5), max_size=2),
)
def test_what_is_encoded_is_decoded(
    parts: list[bytes],
    headers: list[tuple[bytes, bytes]],
    seconds: float,
    model: str,
    aside: list[bytes],
) -> None:
    ends = [sum(map(len, parts[: count + 1])) for count in range(len(parts))]
    made = entry(
        body=b"".join(parts),
        ends=ends,
        times=list(range(len(ends))),
        headers=headers,
        created=seconds,
        ttl=seconds,
        keep=seconds,
        model=model,
        aside=aside,
    )
    assert decode(KEY, encode(made)) == made
    assert frames(made) == (parts or [b""])
    for least in range(4):
        assert b"".join(pieces(made, least)) == made.body
        assert all(len(piece) >= least for piece in pieces(made, least)[:-1])
    assert pieces(made, 0) == parts


def test_what_is_one_piece() -> None:
    made = entry(body=b"{}", ends=[], times=[])
    assert decode(KEY, encode(made)) == made
    assert frames(made) == pieces(made, 9) == [b"{}"]


def test_frames_are_joined_whole() -> None:
    made = entry(body=b"aabbbcd", ends=[2, 5, 6, 7], times=[])
    assert decode(KEY, encode(made)) == made
    assert pieces(made, 2) == [b"aa", b"bbb", b"cd"]
    assert pieces(made, 3) == [b"aabbb", b"cd"]
    assert pieces(made, 99) == [b"aabbbcd"]


def test_each_bit_is_minded() -> None:
    data = encode(entry())
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            assert decode(KEY, bytes(changed)) is None


def test_each_cut_is_seen() -> None:
    data = encode(entry())
    assert all(decode(KEY, data[:length]) is None for length in range(len(data)))
    assert decode(KEY, data + b"\0") is None


def test_a_row_of_another_key_is_none() -> None:
    assert decode(KEY[:-1] + "b", encode(entry())) is None


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 80))
def test_nothing_is_raised(data: bytes, head: bytes, length: int) -> None:
    assert decode(KEY, data) is None
    assert decode(KEY, packed(head, data)) is None
    rest = length.to_bytes(4, "big") + head
    assert decode(KEY, b"aipc\x01" + zlib.crc32(rest).to_bytes(4, "big") + rest) is None


@pytest.mark.parametrize(
    "change",
    [
        {"created": math.nan},
        {"created": -1.0},
        {"created": 1e11},
        {"created": math.inf},
        {"ttl": math.nan},
        {"ttl": -0.5},
        {"ttl": math.inf},
        {"keep": math.nan},
        {"keep": -1.0},
        {"keep": math.inf},
        {"status": 199},
        {"status": 304},
        {"status": 500},
        {"status": True},
        {"headers": [(b"set-cookie", b"a=b")]},
        {"headers": [(b"Content-Type", b"a/b")]},
        {"headers": [(b"content-type", b"a/b\r\nset-cookie: a=b")]},
        {"headers": [(b"etag", b"a\nb")]},
        {"headers": [(b"etag", b"a\0b")]},
        {"headers": [(b"etag", b"\x1b")]},
        {"headers": [(b"etag", b"\x7f")]},
        {"headers": [(b"etag", b"a", b"b")]},
        {"headers": [("etag", "a")]},
        {"model": None},
        {"model": 7},
        {"event_stream": 1},
        {"ends": [18, 9]},
        {"ends": [9, 9, 18], "times": []},
        {"ends": [0, 18]},
        {"ends": [9, 19]},
        {"ends": [9]},
        {"ends": [9, 17]},
        {"ends": [-9, 18]},
        {"ends": [], "times": [0]},
        {"times": [20, 0]},
        {"times": [-1, 0]},
        {"times": [0]},
        {"times": [0, 1, 2]},
    ],
    ids=str,
)
def test_what_is_planted_is_none(change: dict[str, Any]) -> None:
    made = entry(**change)
    assert decode(KEY, encode(made)) is None


def test_heads_of_another_shape() -> None:
    head = head_of(entry())
    body = entry().body
    encoded = msgspec.msgpack.encode
    assert decode(KEY, packed(encoded([*head, b""]), body)) == entry()
    assert decode(KEY, packed(encoded([*head, b"planted"]), body)) == entry()
    assert decode(KEY, packed(encoded([*head, b""]) + b"\0", body)) is None
    assert decode(KEY, packed(encoded([*head, b"", [b"a"]]), body)) == entry(aside=[b"a"])
    assert decode(KEY, packed(encoded([*head, b"", 1]), body)) is None
    assert decode(KEY, packed(encoded([*head, b"", ["a"]]), body)) is None
    assert decode(KEY, packed(encoded([*head, b"", [], 1]), body)) is None
    assert decode(KEY, packed(encoded(head[:3]), body)) is None
    assert decode(KEY, packed(encoded({"key": KEY}), body)) is None
    assert decode(KEY, packed(b"\x91" * 100_000, body)) is None
    assert decode(KEY, packed(b"\x9f\xa1\xff", body)) is None
    assert decode(KEY, packed(b"\xdd\xff\xff\xff\xff", body)) is None
    assert decode(KEY, b"aipc\x02" + encode(entry())[5:]) is None
