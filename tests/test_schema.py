"""From bytes to the call that they mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.call import Call
from ai_proxy_mw.schema.members import DECISIVE, KNOWN, members

names = st.sampled_from(["model", "stream", "n", "Model", "text", "x", "é"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def objects(draw: st.DrawFn) -> tuple[list[tuple[str, Any]], bytes]:
    """Members as they were written, doubles among them, and a spelling of the object."""
    written = draw(st.lists(st.tuples(names, values), max_size=5))
    space = st.sampled_from(["", " ", "\n\t"])
    ascii_only = draw(st.booleans())
    parts = [
        draw(space)
        + json.dumps(name, ensure_ascii=ascii_only)
        + draw(space)
        + ":"
        + draw(space)
        + json.dumps(value, ensure_ascii=ascii_only)
        + draw(space)
        for name, value in written
    ]
    text = draw(space) + "{" + (",".join(parts) or draw(space)) + "}" + draw(space)
    return written, text.encode()


@given(objects())
def test_known_members_are_those_that_were_written_or_the_object_is_refused(
    case: tuple[list[tuple[str, Any]], bytes],
) -> None:
    written, body = case
    folded = [name.lower() for name, _ in written if name.lower() in DECISIVE]
    spelled = [name for name, _ in written if name.lower() in DECISIVE]
    if len(set(folded)) < len(folded) or folded != spelled:
        with pytest.raises(InvalidRequest, match=r"two members|small letters"):
            members(body)
        return
    try:
        found = members(body)
    except InvalidRequest:
        assert len(dict(written)) < len(written)  # others are there twice, and it was looked at
        return
    expected = {name: value for name, value in written if name in KNOWN}
    assert {name: json.loads(bytes(raw)) for name, raw in found.items()} == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"max_tokens":1,"max\\u005ftokens":9}',
        b'{"tools":[{"type":"function"}],"tools":[]}',
        b'{"functions":[1],"functions":null}',
        b'{"input":"much","input":"little"}',
        b'{"best_of":20,"best_of":1}',
        b'{"n":{"b":1,"c":2},"b":1,"n":0}',
        b'{"n":"\\",","n":"x"}',
        b'{"n":[],"n":[[],[]]}',
        b'{"n":1,"b":2,"n":1}',
        b'{"n":11,"n":1}',
        b'{"model":"a","x":1,"x":2,"tools":[{"model":"b"}]}',
    ],
)
def test_two_members_of_one_name_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="two members"):
        members(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"a":1,}',
        b'{"a":1}x',
        b"\xef\xbb\xbf{}",
        b'{"\xff":1,"m\\u006fdel":1}',
        b'{"a":' * 100_000,
        b"\x00",
    ],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a JSON object"):
        members(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","Model":"b"}',
        b'{"MODEL":"b"}',
        b'{"model":"a","model\\u0000":"b"}',
        '{"model":"a","\u017ftream":true}'.encode(),
        b'{"model":"a","\\u017ftream":true}',
        b'{"model":"a","\\u004dodel":"b"}',
        b'{"tools":[],"Tools":[1]}',
    ],
)
def test_another_spelling_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="small letters"):
        members(body)


def test_a_flood_of_members_is_not_walked_over() -> None:
    flood = b'{"model":"a","n":1,"x":{"n":1},' + b",".join(b'"%x":0' % n for n in range(10**5))
    with pytest.raises(InvalidRequest, match="too many members"):
        members(flood + b"}")
    found = members(b'{"model":"a",' + flood[31:] + b"}")
    assert {name: bytes(raw) for name, raw in found.items()} == {"model": b'"a"'}


def test_a_call_knows_its_model() -> None:
    call = Call("POST /chat/completions", b'{"model":"gpt-4.1","stream":true,"n":1}')
    assert (call.model, call.stream, call.other_models) == ("gpt-4.1", True, [])
    assert repr(call) == "Call(POST /chat/completions model='gpt-4.1' stream=True)"
    empty = Call("POST /moderations", b'{"model":null,"models":["a"],"fallbacks":["b"]}')
    assert (empty.model, empty.stream, empty.other_models) == (None, False, ["a", "b"])
    drawing = Call("POST /responses", b'{"tools":[{"type":"x"},{"type":"y","model":"c"}]}')
    assert drawing.other_models == ["c"]


@pytest.mark.parametrize("body", [b'{"model":1}', b'{"stream":"yes"}', b'{"model":"\xff"}'])
def test_a_member_of_another_type_is_named(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Call("POST /chat/completions", body)
    assert caught.value.param in ("model", "stream")
