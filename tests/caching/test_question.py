"""What a body asks: one form for all who ask the same, and no body with two meanings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_proxy_mw.caching.question import Unkeyable, canonical, read


def decode(body: bytes) -> dict[str, Any]:
    return read(body).members


# Texts that look like the ends of names, and other ways to write what they are of.
_TRICKY = st.text(st.sampled_from('":,{}[] \\/u0123aAé\t\n\x7f😀'), max_size=6)
_SCALAR = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)


class Pairs(list[tuple[str, Any]]):
    """An object as it is written, with members of one name if need be."""


_PAIRS: st.SearchStrategy[Pairs] = st.deferred(
    lambda: st.lists(st.tuples(_TRICKY, _VALUES), max_size=4).map(Pairs)
)
_VALUES: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(_SCALAR, _TRICKY, st.lists(_VALUES, max_size=3), _PAIRS)
)


def _space(draw: st.DrawFn) -> str:
    return draw(st.sampled_from(["", "", " ", "\n\t", "\r "]))


def _string(draw: st.DrawFn, text: str) -> str:
    """A JSON string, each of its characters written in one of the ways there are."""
    written = []
    for character in text:
        ways = [json.dumps(character, ensure_ascii=plain)[1:-1] for plain in (False, True)]
        if ord(character) < 0x10000:
            ways += [f"\\u{ord(character):04x}", f"\\u{ord(character):04X}"]
        if character == "/":
            ways.append("\\/")
        written.append(draw(st.sampled_from(ways)))
    return f'"{"".join(written)}"'


@st.composite
def _written(draw: st.DrawFn, value: Any) -> str:
    s = _space(draw)
    if isinstance(value, Pairs):
        members = [
            f"{_space(draw)}{_string(draw, name)}{_space(draw)}:{s}{draw(_written(inner))}"
            for name, inner in value
        ]
        return f"{{{s}{','.join(members)}{s}}}"
    if isinstance(value, list):
        return f"[{s}{','.join(draw(_written(inner)) for inner in value)}{s}]"
    return _string(draw, value) if isinstance(value, str) else json.dumps(value)


def _has_doubles(value: Any) -> bool:
    if isinstance(value, Pairs):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(_has_doubles(inner) for _, inner in value)
    return isinstance(value, list) and any(_has_doubles(inner) for inner in value)


def _plain(value: Any) -> Any:
    if isinstance(value, Pairs):
        return {name: _plain(inner) for name, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


@settings(max_examples=40)
@given(data=st.data(), value=_PAIRS)
def test_doubles_are_found_however_they_are_written(data: st.DataObject, value: Pairs) -> None:
    body = data.draw(_written(value)).encode()
    left_out = data.draw(st.sets(st.sampled_from([name for name, _ in value] + ["user"])))
    if _has_doubles(value):
        with pytest.raises(Unkeyable):
            read(body, left_out)
        return
    members, asked = read(body, left_out)
    assert members == _plain(value)
    assert json.loads(asked) == {
        name: inner for name, inner in members.items() if name not in left_out
    }


@settings(max_examples=30)
@given(value=_PAIRS, data=st.data())
def test_how_it_is_written_makes_no_difference(value: Pairs, data: st.DataObject) -> None:
    if _has_doubles(value):
        value = Pairs(_plain(value).items())
    again = Pairs(data.draw(st.permutations(value)))
    one, other = data.draw(_written(value)).encode(), data.draw(_written(again)).encode()
    if not _has_doubles(value):
        assert read(one).canonical == read(other).canonical


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":{"b":[{"c":1,"c":2}]}}',
        # The name that is dropped takes two quotes, and the text has two that are hidden.
        b'{"a":1,"a":"\\u0022\\u0022"}',
        b'{"a":1,"a":2,"b":"\\u0022\\u0022"}',
        b'{"a":1,"a":2,"user":"\\u0022\\u0022"}',
        b'{"a":1,"a" :2,"b":": \\" : \\\\"}',
        b'{"user":1,"user":2}',
        b'{"":1,"":2}',
    ],
)
def test_two_members_of_one_name(body: bytes) -> None:
    with pytest.raises(Unkeyable):
        read(body, {"user"})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"a"',
        b"null",
        b"{",
        b"{}{}",
        b'{"a":NaN}',
        b'{"a":1e400}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"a":%b%b}' % (b"[" * 200_000, b"]" * 200_000),
        b'{"a":%b}' % (b"9" * 5000),
    ],
)
def test_what_is_no_object(body: bytes) -> None:
    with pytest.raises(Unkeyable):
        decode(body)


def test_nothing_else_is_raised_for_what_is_deep() -> None:
    for depth in range(100, 1200, 50):
        try:
            decode(b'{"a":"\\u0022","b":%b%b}' % (b'[{"a":' * depth, b"1" + b"}]" * depth))
        except Unkeyable:
            pass


@given(st.binary(max_size=40))
def test_nothing_else_is_raised(body: bytes) -> None:
    try:
        read(body)
    except Unkeyable:
        pass


def test_the_canonical_form() -> None:
    assert canonical({"b": [1, {"d": 1, "c": "A/é"}], "a": None}) == (
        '{"a":null,"b":[1,{"c":"A/é","d":1}]}'.encode()
    )
    body = b'{ "user":"me", "b":"\\u0041\\/", "a":123456789012345678901234567890}'
    assert read(body, {"user", "metadata"}) == (
        {"user": "me", "b": "A/", "a": 123456789012345678901234567890},
        b'{"a":123456789012345678901234567890,"b":"A/"}',
    )


def test_only_the_top_is_left_out() -> None:
    assert read(b'{"a":{"user":1},"user":2}', {"user"}).canonical == b'{"a":{"user":1}}'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1}', b'{"a":1.0}'),
        (b'{"a":1}', b'{"a":"1"}'),
        (b'{"a":1}', b'{"a":true}'),
        (b'{"a":null}', b"{}"),
        (b'{"a":[]}', b'{"a":{}}'),
        (b'{"a":9007199254740993}', b'{"a":9007199254740992}'),
        ('{"a":"\u00e9"}'.encode(), '{"a":"e\u0301"}'.encode()),
        (b'{"a":1}', b'{"A":1}'),
        (b'{"a":""}', b'{"a":"\\u0000"}'),
    ],
)
def test_other_questions(one: bytes, other: bytes) -> None:
    assert read(one).canonical != read(other).canonical
