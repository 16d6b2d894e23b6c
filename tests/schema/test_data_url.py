"""Data URLs and addresses."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw.schema.data_url import BadDataUrl, is_data_url, read_data_url
from ai_proxy_mw.schema.json_text import BadText, unescaped
from ai_proxy_mw.schema.link import MAX_LINK, BadLink, read_link


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [
        (b"data:image/png;base64,AAAA", "image/png"),
        (b"DATA:Image/PNG;BASE64,AAAA", "image/png"),
        (rb"data:image\/png;base64,AAAA", "image/png"),
        (rb"data:image/svg\u002bxml;base64,AAAA", "image/svg+xml"),
        (b"data:;base64,AAAA", ""),
        (b"data:image/png;name=a.png;base64,AAAA", "image/png"),
        (b'data:text/plain;charset=utf-8;x="y";base64,AAAA', "text/plain"),
        (b"data:;charset=utf-8;base64,AAAA", ""),
        (b"data:application/vnd.a-b.c+d;base64,AAAA", "application/vnd.a-b.c+d"),
    ],
)
def test_it_is_taken_apart(raw: bytes, media_type: str) -> None:
    assert is_data_url(raw)
    found = read_data_url(raw)
    assert found.media_type == media_type
    assert bytes(found.text) == b"AAAA"


def test_its_data_are_a_part_of_what_was_given() -> None:
    raw = b"data:image/png;base64,AAAA"
    assert read_data_url(memoryview(raw)).text.obj is raw


@pytest.mark.parametrize(
    "raw",
    [
        b"data:image/png,AAAA",
        b"data:image/png;base64",
        b"data:image/png;base64;AAAA",
        b"data:image/png;base64 ,AAAA",
        b"data:image/png; base64,AAAA",
        b"data: image/png;base64,AAAA",
        b"data:image;base64,AAAA",
        b"data:/png;base64,AAAA",
        b"data:image/png;base64;charset=utf-8,AAAA",
        b"data:image/png;base64=1,AAAA",
        b"data:image/png;x;base64,AAAA",
        b"data:image/p ng;base64,AAAA",
        b"data:base64,AAAA",
        b"data:,AAAA",
        b"data:",
        b"data:image/png;x=" + b"y" * 2000 + b";base64,AAAA",
        rb"data:image/png;base64\u002cAAAA,AAAA",
        rb"data:image\xpng;base64,AAAA",
        rb"data:image/png\n;base64,AAAA",
        b"data:image/\xff;base64,AAAA",
    ],
)
def test_what_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(BadDataUrl):
        read_data_url(raw)


@pytest.mark.parametrize("raw", [b"", b"data", b"http://a", b" data:", b"datax:", b"AAAA"])
def test_other_values_do_not_begin_as_one(raw: bytes) -> None:
    assert not is_data_url(raw)


@given(st.binary(max_size=60))
def test_random_data_urls_have_no_other_end(raw: bytes) -> None:
    for value in (raw, b"data:" + raw, b"data:image/png;base64," + raw):
        with suppress(BadDataUrl):
            read_data_url(value)


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        (b"https://a.example/b.png", "https://a.example/b.png"),
        (b"HTTP://a", "HTTP://a"),
        (rb"https:\/\/a.example\/b?c=1\u0026d=2", "https://a.example/b?c=1&d=2"),
        (b"https://a.example:8443?x@y:z", "https://a.example:8443?x@y:z"),
        (b"http://[::1]:80/#a", "http://[::1]:80/#a"),
        (b"http://127.0.0.1", "http://127.0.0.1"),
        ("https://bücher.example/ü".encode(), "https://bücher.example/ü"),
        (b"https://a/" + b"b" * (MAX_LINK - 10), "https://a/" + "b" * (MAX_LINK - 10)),
    ],
)
def test_addresses(raw: bytes, url: str) -> None:
    assert read_link(memoryview(raw)) == url


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "must begin with"),
        (b"file-123", "must begin with"),
        (b"ftp://a/b", "must begin with"),
        (b"file:///etc/passwd", "must begin with"),
        (b"javascript:alert(1)", "must begin with"),
        (b"blob:https://a/b", "must begin with"),
        (b"//a/b", "must begin with"),
        (b"https:a", "must begin with"),
        (b"https:/a/b", "must begin with"),
        (b"https://", "has no host"),
        (b"https:///b", "has no host"),
        (b"https://?b", "has no host"),
        (b"https://#b", "has no host"),
        (b"https://:80/", "has no host"),
        (b"https://a:b/", "has no host"),
        (b"https://a:65536/", "has no host"),
        (b"https://a:1:2/", "has no host"),
        (b"https://a%2eb/", "has no host"),
        (b"https://a<b/", "has no host"),
        (b"http://[::1/", "has no host"),
        (b"http://[fe80::1%25eth0]/", "has no host"),
        (b"https://user@a/", "must not hold a user name"),
        (b"https://user:word@a/", "must not hold a user name"),
        (b"https://@a/", "must not hold a user name"),
        (b" https://a/", "has spaces"),
        (b"https://a/ ", "has spaces"),
        (b"https://a/b c", "has spaces"),
        (rb"https://a/\n", "has spaces"),
        (rb"https://a/\u0000", "has spaces"),
        (rb"https://a\u3000b/", "has spaces"),
        (rb"https://a/\u202e", "has spaces"),
        (b"https://a/\x7f", "has spaces"),
        (rb"https:\\\\a\\b", "has a backslash"),
        (rb"https://a\\@b/", "has a backslash"),
        (rb"https://a\b", "has spaces"),
        (rb"https://a\x", "has an escape or a character that JSON does not know"),
        (b"https://a/\xff", "has an escape or a character that JSON does not know"),
        (b"https://a/" + b"b" * MAX_LINK, f"is longer than {MAX_LINK}"),
        (b"https://a/" + b"b" * 6 * MAX_LINK, f"is longer than {MAX_LINK}"),
        (rb"\u0064ata:image/png;base64,AAAA", "must begin with"),
    ],
)
def test_wrong_addresses(raw: bytes, message: str) -> None:
    with pytest.raises(BadLink, match=f"^{message}"):
        read_link(raw)


@given(st.binary(max_size=60))
def test_random_addresses_have_no_other_end(raw: bytes) -> None:
    for value in (raw, b"https://" + raw):
        with suppress(BadLink):
            read_link(value)


def test_text_with_escapes() -> None:
    assert unescaped(rb"\u00e9\/\n") == "é/\n"
    assert unescaped("é".encode()) == "é"
    with pytest.raises(BadText):
        unescaped(rb"\ud800")
