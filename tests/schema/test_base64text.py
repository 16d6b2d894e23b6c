"""Base64 text is checked as a whole and decoded in parts."""

from __future__ import annotations

import json
import re
import tracemalloc
from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ai_proxy_mw.schema import base64text
from ai_proxy_mw.schema.base64text import BadBase64, Base64Text

DATA = bytes(range(256)) * 3 + b"\xfb\xff\xbf\xff"
TEXT = b64encode(DATA)


def php(text: bytes) -> bytes:
    return text.replace(b"/", rb"\/")


def dotnet(text: bytes) -> bytes:
    return text.replace(b"+", rb"\u002B")


def all_escaped(text: bytes) -> bytes:
    return b"".join(b"\\u%04x" % letter for letter in text)


@pytest.mark.parametrize("length", range(9))
def test_all_of_it_can_be_had(length: int) -> None:
    text = Base64Text(memoryview(b64encode(DATA[-length - 1 :])))
    assert text.size == length + 1
    assert text.slice(0, 100) == DATA[-length - 1 :]


@given(st.binary(min_size=1, max_size=300), st.integers(-5, 310), st.integers(-5, 310))
def test_a_part_is_what_it_is_of_the_whole(data: bytes, start: int, end: int) -> None:
    for write in (bytes, php, dotnet, all_escaped):
        text = Base64Text(write(b64encode(data)))
        assert text.size == len(data)
        assert text.slice(start, end) == data[max(0, start) : max(0, end)]
        assert text.head(end) == data[: max(0, end)]
        assert text.tail(max(0, end)) == data[max(0, len(data) - max(0, end)) :]


@pytest.mark.parametrize("write", [bytes, php, dotnet, all_escaped])
@pytest.mark.parametrize("block", [6, 7, 8, 11, 64])
def test_blocks_may_end_anywhere(
    write: type[bytes], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base64text, "_BLOCK", block)
    text = Base64Text(write(TEXT))
    assert text.size == len(DATA)
    for start in range(0, len(DATA), 5):
        assert text.slice(start, start + 9) == DATA[start : start + 9]
    assert text.head(len(DATA)) == DATA


WRONG = [
    (b"", "is empty"),
    (b"=", "is empty"),
    (b"====", "is empty"),
    (b"A", "has a length that Base64 cannot have"),
    (b"AAAAA", "has a length that Base64 cannot have"),
    (b"AAAAA===", "has a length that Base64 cannot have"),
    (b"AA", "lacks its padding"),
    (b"AA=", "lacks its padding"),
    (b"AAA", "lacks its padding"),
    (b"AAAA=", "has too much padding"),
    (b"AAA==", "has too much padding"),
    (b"AA===", "has too much padding"),
    (b"AA==AAAA", "has padding before its end"),
    (b"=AAA", "has padding before its end"),
    (b"AA AA", "has spaces or line breaks"),
    (b" AAAA", "has spaces or line breaks"),
    (b"AAAA ", "has spaces or line breaks"),
    (b"AAAA\n", "has spaces or line breaks"),
    (rb"AAAA\n", "has spaces or line breaks"),
    (rb"AAAA\r\nAAAA", "has spaces or line breaks"),
    (rb"AAAA\u0020", "has spaces or line breaks"),
    (b"AA-_", "is in the alphabet for URLs"),
    (b"AA-A", "is in the alphabet for URLs"),
    (b"AA-%", "has characters in it that are not of Base64"),
    (b"AAA%3D", "has characters in it that are not of Base64"),
    (b"A=A-", "has characters in it that are not of Base64"),
    (b"AAA\xff", "has characters in it that are not of Base64"),
    (b"AAA\0", "has characters in it that are not of Base64"),
    (rb"AAA\\", "has characters in it that are not of Base64"),
    (rb"AAA\\/", "has characters in it that are not of Base64"),
    (rb"AAA\"", "has characters in it that are not of Base64"),
    (rb"AAA\u00e9", "has characters in it that are not of Base64"),
    (rb"AAA\ud83d\ude00", "has characters in it that are not of Base64"),
    (b"AAA\\", "has an escape or a character that JSON does not know"),
    (rb"AAA\x41", "has an escape or a character that JSON does not know"),
    (rb"AAA\u00", "has an escape or a character that JSON does not know"),
    (rb"AAA\ud83d", "has an escape or a character that JSON does not know"),
    (b'AA"A\\/', "has an escape or a character that JSON does not know"),
    (b"AA\xffA\\/", "has an escape or a character that JSON does not know"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_each_mistake_has_its_message(text: bytes, message: str) -> None:
    with pytest.raises(BadBase64, match=f"^{re.escape(message)}"):
        Base64Text(text)


@pytest.mark.parametrize("text", [rb"AAAA\\AAAA", b"AAAAAA==AAAA", b"AAAAAAA=A===", rb"AAAAAAA\=="])
def test_a_mistake_at_the_border_of_blocks_is_one(
    text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for block in range(6, 12):
        monkeypatch.setattr(base64text, "_BLOCK", block)
        with pytest.raises(BadBase64):
            Base64Text(text)


def test_padding_may_stand_at_the_border_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for block in range(6, 12):
        monkeypatch.setattr(base64text, "_BLOCK", block)
        assert Base64Text(b"AAAAAA==").head(9) == bytes(4)
        assert Base64Text(rb"AAAAAA\u003d\u003D").head(9) == bytes(4)


def test_bits_behind_the_last_byte_may_be_set() -> None:
    assert Base64Text(b"AB==").head(9) == b"\0"


@given(st.text(st.sampled_from('AZaz09+/=\\u002F-_ \n%"'), max_size=40))
@example("\\u002B\\/==")
def test_what_is_taken_is_what_a_strict_reader_takes(text: str) -> None:
    raw = text.encode()
    try:
        plain = json.loads(b'"%b"' % raw, strict=False)
    except ValueError:
        plain = "not JSON"
    is_valid = (
        re.fullmatch(r"(?:[\w+/]{4})*(?:[\w+/]{4}|[\w+/]{3}=|[\w+/]{2}==)", plain, re.ASCII)
        and "_" not in plain
    )
    if is_valid:
        assert b64encode(Base64Text(raw).head(99))[:-3] == plain.encode()[:-3]
    else:
        with pytest.raises(BadBase64):
            Base64Text(raw)


@given(st.binary(max_size=100))
def test_random_bytes_are_refused_with_a_message_or_taken(raw: bytes) -> None:
    with suppress(BadBase64):
        text = Base64Text(raw)
        assert len(text.head(1000)) == text.size


def test_nothing_is_copied_as_a_whole() -> None:
    body = memoryview(b"A" * 4_000_000)
    tracemalloc.start()
    try:
        Base64Text(body).tail(1000)
        assert tracemalloc.get_traced_memory()[1] < 400_000
    finally:
        tracemalloc.stop()
