"""The judge on small tables: what it says, and what it lets pass."""

from __future__ import annotations

from typing import Any

import pytest

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.found import Found
from ai_proxy_mw.schema.judge import Judge
from ai_proxy_mw.schema.spec import (
    Anything,
    Either,
    Fields,
    Flag,
    Get,
    Kind,
    ListOf,
    MapOf,
    Media,
    Number,
    Problem,
    Text,
    Variants,
    Whole,
)


def error(kind: Kind, value: Any, *, strict: bool = False) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        Judge(strict=strict).check(kind, value, "x")
    return caught.value


def passes(kind: Kind, value: Any, *, strict: bool = False) -> list[Found]:
    judge = Judge(strict=strict)
    judge.check(kind, value, "x")
    return judge.found


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Flag(), 1, "Invalid type for 'x': expected a boolean, but got an integer instead."),
        (Text(), 1.5, "Invalid type for 'x': expected a string, but got a decimal instead."),
        (Number(), True, "Invalid type for 'x': expected a decimal, but got a boolean instead."),
        (Whole(), None, "Invalid type for 'x': expected an integer, but got null instead."),
        (
            ListOf(item=Text()),
            "a",
            "Invalid type for 'x': expected an array, but got a string instead.",
        ),
        (
            MapOf(value=Text()),
            [],
            "Invalid type for 'x': expected an object, but got an array instead.",
        ),
        (
            Either(kinds=(Text(), ListOf(item=Text()), ListOf(item=Whole()))),
            {},
            "Invalid type for 'x': expected a string or an array, but got an object instead.",
        ),
        (
            Either(kinds=(ListOf(item=Text()), ListOf(item=Whole()))),
            [None],
            "Invalid type for 'x[0]': expected a string or an integer, but got null instead.",
        ),
        (Text(least=1), "", "Invalid 'x': string is empty. Expected a length of at least 1."),
        (Text(least=2), "a", "Invalid 'x': string too short. Expected a length of at least 2."),
        (
            ListOf(item=Text(), least=2),
            ["a"],
            "Invalid 'x': array too short. Expected a length of at least 2.",
        ),
        (
            Text(most=1),
            "ab",
            "Invalid 'x': string too long. Expected a length of at most 1, but got 2 instead.",
        ),
        (
            Text(choices=("a", "b")),
            "c",
            "Invalid value: 'c'. Supported values are: 'a', 'b'.",
        ),
        (
            Number(least=0),
            -1,
            "Invalid 'x': decimal below minimum value. Expected a value >= 0, but got -1 instead.",
        ),
        (
            Whole(most=2),
            3,
            "Invalid 'x': integer above maximum value. Expected a value <= 2, but got 3 instead.",
        ),
        (Fields(fields={}, needed=("a",)), {}, "Missing required parameter: 'x.a'."),
        (Variants(by="type", known={}), {}, "Missing required parameter: 'x.type'."),
    ],
)
def test_what_it_says(kind: Kind, value: Any, message: str) -> None:
    assert error(kind, value).message == message


def test_the_words_of_a_caller_are_cut_short() -> None:
    long = "a" * 500
    assert len(error(Text(choices=("a",)), long).message) < 150
    wrong = error(MapOf(value=Text()), {long: 1})
    assert wrong.param == "x." + "a" * 64 + "…"
    assert len(wrong.message) < 200


def test_what_passes() -> None:
    passes(Anything(), None)
    passes(Text(nullable=True), None)
    passes(Number(least=0, most=1), 1)
    passes(Either(kinds=(ListOf(item=Text()), ListOf(item=Whole()))), [])
    passes(Either(kinds=(ListOf(item=Text()), ListOf(item=Whole()))), [1, 2])
    passes(Fields(fields={"a": Text()}), {"b": 1})


def test_strictly_only_what_is_known_passes() -> None:
    known = Fields(fields={"a": Text()})
    wrong = error(known, {"a": "", "b": 1}, strict=True)
    assert (wrong.param, wrong.code) == ("x.b", "unknown_parameter")
    passes(Fields(fields={}, is_open=True), {"b": 1}, strict=True)
    tagged = Variants(by="type", known={"a": known})
    passes(tagged, {"type": "a", "a": ""}, strict=True)
    passes(tagged, {"type": "b"})
    wrong = error(tagged, {"type": "b"}, strict=True)
    assert (wrong.param, wrong.code) == ("x.type", "invalid_value")


def test_words_that_have_no_place() -> None:
    kind = Variants(by="type", known={"a": Fields(fields={})}, elsewhere=("b",))
    passes(kind, {"type": "c"})
    assert error(kind, {"type": "b"}).param == "x.type"
    closed = Variants(by="type", known={"a": Fields(fields={})}, is_open=False)
    assert error(closed, {"type": "c"}).param == "x.type"


def test_the_word_that_is_meant_where_none_is_said() -> None:
    known = {"a": Fields(fields={}, needed=("n",)), "b": Fields(fields={})}
    kind = Variants(by="type", known=known, default="a")
    assert error(kind, {}).param == "x.n"
    assert error(kind, {"type": None}).param == "x.n"
    assert error(kind, {"type": 1}).param == "x.type"
    passes(kind, {"type": "b"})


def test_media_are_found_with_what_is_declared() -> None:
    kind = Fields(
        fields={
            "data": Media(media="audio", declared="format", nullable=True),
            "format": Anything(),
            "links": ListOf(item=Media(media="image_link")),
        }
    )
    assert passes(kind, {"data": "ä", "format": "wav", "links": ["a", "b"]}) == [
        Found("audio", "x.data", "ä".encode(), "wav"),
        Found("image_link", "x.links[0]", b"a", None),
        Found("image_link", "x.links[1]", b"b", None),
    ]
    assert passes(kind, {"data": "a", "format": 1}) == [Found("audio", "x.data", b"a", None)]
    assert passes(kind, {"data": None, "format": "wav"}) == []
    assert error(kind, {"data": 1}).param == "x.data"


def test_a_rule_sees_what_is_further_in() -> None:
    def rule(get: Get) -> Problem | None:
        return Problem("a.b", "odd", "Odd.") if get("a", "b") == 1 else None

    kind = Fields(fields={"a": Anything()}, rule=rule)
    passes(kind, {"a": {"b": 2}})
    passes(kind, {"a": 1})
    passes(kind, {})
    wrong = error(kind, {"a": {"b": 1}})
    assert (wrong.param, wrong.code, wrong.message) == ("x.a.b", "odd", "Odd.")
