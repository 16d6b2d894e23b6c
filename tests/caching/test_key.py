"""Keys: one for the same parts, never one for two that differ."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_proxy_mw.caching.key import Scope, app_prefix, cache_key

_KINDS = st.sampled_from(["subject", "group", "shared", "own"])
# What might be taken for a length, a separator or another part; halves of surrogate pairs.
_TEXTS = st.text(st.sampled_from("0123:,|/\x00 aé\u0301\ud83d\ude00😀"), max_size=5) | st.text(
    max_size=4
)
_BYTES = st.binary(max_size=4) | _TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass"))
_PARTS = st.fixed_dictionaries(
    {
        "scope": st.builds(Scope, _KINDS, _TEXTS),
        "app": st.sampled_from(["", "a", "b"]),
        "upstream": _TEXTS,
        "endpoint": _TEXTS,
        "path": _TEXTS,
        "query": _BYTES,
        "question": _BYTES,
        "vary": st.lists(st.tuples(_TEXTS, _TEXTS), max_size=2),
    }
)
PLAIN: dict[str, Any] = {
    "app": "shop",
    "upstream": "https://api.example.com/v1",
    "endpoint": "POST /chat/completions",
    "path": "/chat/completions",
    "query": b"",
    "question": b'{"model":"m"}',
}


@settings(max_examples=50)
@given(_PARTS, _PARTS)
def test_two_keys_are_the_same_if_their_parts_are(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (cache_key(**one) == cache_key(**two)) == (one == two)


@settings(max_examples=50)
@given(parts=_PARTS, data=st.data())
def test_what_moves_from_one_part_to_the_next_is_another_key(
    parts: dict[str, Any], data: st.DataObject
) -> None:
    one, two = data.draw(st.permutations(["upstream", "endpoint", "path"]))[:2]
    moved = {**parts, one: parts[one] + parts[two], two: ""}
    assert (cache_key(**moved) == cache_key(**parts)) == (moved == parts)
    swapped = {**parts, "query": parts["query"] + parts["question"], "question": b""}
    assert (cache_key(**swapped) == cache_key(**parts)) == (swapped == parts)


@pytest.mark.parametrize(
    "change",
    [
        {"app": "shop2"},
        {"app": ""},
        {"upstream": "https://api.example.com/v1/"},
        {"endpoint": "POST /completions"},
        {"path": "/Chat/completions"},
        {"query": b"a=1"},
        {"question": b'{"model":"m" }'},
        {"vary": [("", "")]},
        {"vary": [("accept-language", "")]},
        {"vary": [("accept-language", "de")]},
        {"vary": [("accept-language", "de"), ("accept-language", "de")]},
    ],
    ids=str,
)
def test_each_part_makes_a_difference(change: dict[str, Any]) -> None:
    scope = Scope("subject", "ann")
    assert cache_key(scope, **{**PLAIN, **change}) != cache_key(scope, **PLAIN)


def test_kinds_of_scopes_do_not_meet() -> None:
    names = ["", "ann", "subject", "shared", "7:subject", "Ann", "ann ", "ann\0", "\ud800", "é"]
    names += [unicodedata.normalize("NFD", "é"), "own:ann", "\ud83d\ude00", "😀"]
    kinds: list[Any] = ["subject", "group", "shared", "own"]
    keys = {cache_key(Scope(kind, name), **PLAIN) for kind in kinds for name in names}
    assert len(keys) == len(kinds) * len(names)


def test_the_scope_cannot_be_forgotten() -> None:
    with pytest.raises(TypeError):
        cache_key(**PLAIN)


@given(_PARTS)
def test_the_shape(parts: dict[str, Any]) -> None:
    key = cache_key(**parts)
    assert re.fullmatch("e:[0-9a-f]{8}:[0-9a-f]{64}", key)
    assert key.startswith(app_prefix(parts["app"]))


def test_keys_stay_what_they_are() -> None:
    """Whoever changes them changes the version, too: all that is kept is then forgotten."""
    assert app_prefix("shop") == "e:8d9001d3:"
    assert (
        cache_key(Scope("subject", "ann"), **PLAIN)
        == "e:8d9001d3:b2fccc89d4c439caaa8d0b8b1a982722a3b50ef0fd9712571c3d1965092cb399"
    )
    shared = cache_key(
        Scope("shared", ""),
        **{**PLAIN, "query": b"a=%20", "question": b"", "vary": [("accept-language", "d\ud800")]},
    )
    assert shared == "e:8d9001d3:89a29c045e59b0f096d8fb6b500df3be1346e3401329aca2e709c65d3c03ce3b"
