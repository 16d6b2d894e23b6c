"""The typed decoder on small tables: where it must be careful."""

from __future__ import annotations

import msgspec
import pytest

from ai_proxy_mw.schema.found import Found
from ai_proxy_mw.schema.spec import (
    Either,
    Fields,
    Kind,
    ListOf,
    MapOf,
    Media,
    Text,
    Variants,
    Whole,
)
from ai_proxy_mw.schema.typed import Typed
from tests.schema.doors import REFUSED, plain

IMAGE = Media(media="image")
PICTURE = Fields(fields={"url": IMAGE}, needed=("url",))


def decode(kind: Kind, body: bytes, *, strict: bool = False) -> list[Found]:
    return Typed(Fields(fields={"x": kind}), strict=strict).decode(b'{"x":%b}' % body)


def refuses(kind: Kind, body: bytes, *, strict: bool = False) -> None:
    with pytest.raises(REFUSED):
        decode(kind, body, strict=strict)


def found(kind: Kind, body: bytes) -> list[tuple[str, str, str, str | None]]:
    return plain(decode(kind, body))


def test_media_are_views_of_the_body() -> None:
    (seen,) = decode(IMAGE, b'"data:image/png;base64,AAAA"')
    assert isinstance(seen.value, memoryview)
    assert bytes(seen.value) == b"data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    ("body", "value"),
    [(b'"a\\u0062\\/"', "ab/"), ('"ä"'.encode(), "ä"), (b'""', "")],
)
def test_media_stay_as_they_are_written(body: bytes, value: str) -> None:
    assert found(IMAGE, body) == [("image", "x", value, None)]


def test_a_map_of_media() -> None:
    kind = MapOf(value=Either(kinds=(Text(), PICTURE)))
    long = b"n" * 99
    body = b'{"a":"text","b.c":{"url":"u"},"%b":{"url":"v"}}' % long
    assert found(kind, body) == [
        ("image", 'x["b.c"].url', "u", None),
        ("image", "x." + "n" * 64 + "….url", "v", None),
    ]


@pytest.mark.parametrize("known", [{"a": PICTURE}, {"a": PICTURE, "b": Fields(fields={})}])
def test_the_type_must_be_said(known: dict[str, Fields]) -> None:
    kind = Variants(by="type", known=known)
    assert found(kind, b'{"url":"u","type":"a"}') == [("image", "x.url", "u", None)]
    refuses(kind, b'{"url":"u"}')
    refuses(kind, b'{"url":"u","type":null}')
    refuses(kind, b'{"url":"u","type":"c"}')


@pytest.mark.parametrize("known", [{"a": PICTURE}, {"a": PICTURE, "b": Fields(fields={})}])
@pytest.mark.parametrize("strict", [False, True])
def test_the_type_that_is_meant(known: dict[str, Fields], strict: bool) -> None:
    kind = Variants(by="type", known=known, default="a", nullable=True)
    for tag in (b"", b'"type":null,', b'"type":"a",'):
        seen = decode(kind, b"{%b" % tag + b'"url":"u"}', strict=strict)
        assert plain(seen) == [("image", "x.url", "u", None)]
    assert decode(kind, b"null", strict=strict) == []
    refuses(kind, b'{"url":"u","type":"c"}', strict=strict)
    refuses(kind, b"{}", strict=strict)
    if "b" in known:
        assert decode(kind, b'{"type":"b"}', strict=strict) == []


def test_two_types_are_refused() -> None:
    """Who reads the first of two and who reads the last would see different things."""
    kind = Variants(by="type", known={"a": PICTURE, "b": Fields(fields={})}, default="a")
    refuses(kind, b'{"type":"b","type":"a","url":"u"}')
    refuses(kind, b'{"type":"a","type":"b","url":"u"}')


def test_arrays_are_told_by_their_items() -> None:
    kind = Either(
        kinds=(Text(), ListOf(item=Text()), ListOf(item=Whole()), ListOf(item=PICTURE)),
        nullable=True,
    )
    for body in (b'"a"', b"[]", b'["a"]', b"[1,2]", b"null"):
        assert decode(kind, body) == []
    assert found(kind, b'[{"url":"u"},{"url":"v"}]') == [
        ("image", "x[0].url", "u", None),
        ("image", "x[1].url", "v", None),
    ]
    for body in (b'["a",1]', b'[1,"a"]', b"{}", b"1", b"[null]"):
        refuses(kind, body)


def test_strictly_only_what_is_known_passes() -> None:
    refuses(PICTURE, b'{"url":"u","more":1}', strict=True)
    decode(PICTURE, b'{"url":"u","more":1}')
    decode(Fields(fields={}, is_open=True), b'{"more":1}', strict=True)


def test_what_is_no_json_is_refused() -> None:
    typed = Typed(PICTURE, strict=False)
    for body in (b"", b"{", b'{"url":"u"}}', b'{"url":NaN}', b"\xff", b"[" * 100_000):
        with pytest.raises(REFUSED):
            typed.decode(body)
    with pytest.raises(msgspec.DecodeError):
        typed.decode(b"")
