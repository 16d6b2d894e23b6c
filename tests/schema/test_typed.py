"""The typed decoder on small tables: where it must be careful."""

from __future__ import annotations

import msgspec
import pytest

from ai_proxy_mw.schema.judge import Found
from ai_proxy_mw.schema.spec import (
    Anything,
    Either,
    Fields,
    Get,
    Kind,
    ListOf,
    MapOf,
    Media,
    Problem,
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


def found(kind: Kind, body: bytes) -> list[tuple[str, str, bytes, str | None]]:
    return plain(decode(kind, body))


def test_media_are_views_of_the_body() -> None:
    (seen,) = decode(IMAGE, b'"data:image/png;base64,AAAA"')
    assert isinstance(seen.value, memoryview)
    assert bytes(seen.value) == b"data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    ("body", "value"),
    [(b'"a\\u0062\\/"', b"ab/"), ('"ä"'.encode(), "ä".encode()), (b'""', b"")],
)
def test_other_media_are_decoded(body: bytes, value: bytes) -> None:
    assert found(IMAGE, body) == [("image", "x", value, None)]


def test_an_escape_far_behind_is_seen() -> None:
    long = b"a" * 200_000
    assert found(IMAGE, b'"%b\\n"' % long) == [("image", "x", long + b"\n", None)]


@pytest.mark.parametrize(
    "body", [b"null", b"1", b"{}", b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\x"']
)
def test_what_is_no_text_is_no_media(body: bytes) -> None:
    refuses(IMAGE, body)


def test_media_that_may_be_null() -> None:
    kind = Media(media="file", nullable=True)
    assert found(kind, b"null") == []
    assert found(kind, b'"a"') == [("file", "x", b"a", None)]


def test_null_media_are_none_to_a_rule() -> None:
    def rule(get: Get) -> Problem | None:
        return None if get("url") else Problem("url", "missing", "None.")

    kind = Fields(fields={"url": Media(media="image", nullable=True)}, rule=rule)
    assert found(kind, b'{"url":"a"}') == [("image", "x.url", b"a", None)]
    refuses(kind, b'{"url":null}')
    refuses(kind, b"{}")


def test_a_rule_sees_what_is_further_in() -> None:
    def rule(get: Get) -> Problem | None:
        return Problem("a.b", "odd", "Odd.") if get("a", "b") == 1 else None

    inner = Fields(fields={"b": Whole()})
    kind = Fields(fields={"a": Either(kinds=(Text(), inner))}, rule=rule)
    decode(kind, b'{"a":{"b":2}}')
    decode(kind, b'{"a":{}}')
    decode(kind, b'{"a":"b"}')
    decode(kind, b"{}")
    refuses(kind, b'{"a":{"b":1}}')


def test_declared_formats() -> None:
    kind = Fields(fields={"d": Media(media="audio", declared="f"), "f": Anything()})
    assert found(kind, b'{"d":"a","f":"wav"}') == [("audio", "x.d", b"a", "wav")]
    assert found(kind, b'{"d":"a","f":1}') == [("audio", "x.d", b"a", None)]
    assert found(kind, b'{"f":"wav","d":"a"}') == [("audio", "x.d", b"a", "wav")]
    assert found(kind, b'{"d":"a"}') == [("audio", "x.d", b"a", None)]


def test_a_map_of_media() -> None:
    kind = MapOf(value=Either(kinds=(Text(), PICTURE)))
    long = b"n" * 99
    body = b'{"a":"text","b.c":{"url":"u"},"%b":{"url":"v"}}' % long
    assert found(kind, body) == [
        ("image", "x.b.c.url", b"u", None),
        ("image", "x." + "n" * 64 + "….url", b"v", None),
    ]


@pytest.mark.parametrize("known", [{"a": PICTURE}, {"a": PICTURE, "b": Fields(fields={})}])
def test_the_type_must_be_said(known: dict[str, Fields]) -> None:
    kind = Variants(by="type", known=known)
    assert found(kind, b'{"url":"u","type":"a"}') == [("image", "x.url", b"u", None)]
    refuses(kind, b'{"url":"u"}')
    refuses(kind, b'{"url":"u","type":null}')
    refuses(kind, b'{"url":"u","type":"c"}')


@pytest.mark.parametrize("known", [{"a": PICTURE}, {"a": PICTURE, "b": Fields(fields={})}])
@pytest.mark.parametrize("strict", [False, True])
def test_the_type_that_is_meant(known: dict[str, Fields], strict: bool) -> None:
    kind = Variants(by="type", known=known, default="a", nullable=True)
    for tag in (b"", b'"type":null,', b'"type":"a",'):
        seen = decode(kind, b"{%b" % tag + b'"url":"u"}', strict=strict)
        assert plain(seen) == [("image", "x.url", b"u", None)]
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
        ("image", "x[0].url", b"u", None),
        ("image", "x[1].url", b"v", None),
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
