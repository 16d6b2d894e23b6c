"""Requests that a table takes, made of the table itself, and places in them to spoil."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.judge import Judge, below
from ai_proxy_mw.schema.spec import (
    Anything,
    Either,
    Fields,
    Flag,
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

Value = st.SearchStrategy[Any]

_FEW = 3
"""Items of an array, and members that might also not be there."""

ANYTHING: Value = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


_made: dict[int, tuple[Kind, Value]] = {}


def valid(kind: Kind) -> Value:
    """Values of a kind."""
    if id(kind) not in _made:  # kinds are not hashable, and the kept one keeps its id
        made = _plain(kind)
        _made[id(kind)] = kind, st.none() | made if kind.nullable else made
    return _made[id(kind)][1]


def _plain(kind: Kind) -> Value:
    match kind:
        case Flag():
            return st.booleans()
        case Text():
            return _texts(kind)
        case Media():
            return st.text(max_size=9)
        case Number():
            return _numbers(kind)
        case Whole():
            return st.integers(kind.least, kind.most)
    return _made_of_others(kind)


def _made_of_others(kind: Kind) -> Value:
    match kind:
        case ListOf():
            most = max(kind.least, min(_FEW, _FEW if kind.most is None else kind.most))
            return st.lists(valid(kind.item), min_size=kind.least, max_size=most)
        case MapOf():
            return st.dictionaries(
                st.text(max_size=kind.longest or 9), valid(kind.value), max_size=2
            )
        case Fields():
            return _objects(kind)
        case Variants():
            return st.sampled_from(sorted(kind.known)).flatmap(lambda word: _variant(kind, word))
        case Either():
            # The typed decoder leaves media among others to the judge.
            return st.one_of([valid(each) for each in kind.kinds if not isinstance(each, Media)])
    return ANYTHING


def _texts(kind: Text) -> Value:
    if kind.choices:
        return st.sampled_from(kind.choices)
    longest = kind.least + 9 if kind.most is None else min(kind.least + 9, kind.most)
    return st.text(min_size=kind.least, max_size=longest)


def _numbers(kind: Number) -> Value:
    floats = st.floats(kind.least, kind.most, allow_nan=False, allow_infinity=False)
    return floats | floats.map(int).filter(lambda value: (kind.least or 0) <= value)


@st.composite
def _objects(draw: st.DrawFn, kind: Fields) -> dict[str, Any]:
    others = sorted(kind.fields.keys() - set(kind.needed))
    names = [*kind.needed]
    if others:
        names += draw(st.lists(st.sampled_from(others), unique=True, max_size=_FEW))
    if draw(st.integers(0, 5)) == 0:
        names.append("something_new")
    made = {
        name: draw(valid(kind.fields.get(name, Anything())))
        for name in draw(st.permutations(names))
    }
    for _ in range(9):
        problem = broken(kind, made)
        if problem is None:
            break
        name = problem.name.partition(".")[0]
        if made.pop(name, None) is None:
            made[name] = draw(valid(kind.fields[name]).filter(lambda value: value is not None))
    return made


@st.composite
def _variant(draw: st.DrawFn, kind: Variants, word: str) -> dict[str, Any]:
    made = draw(valid(kind.known[word]))
    ways: list[Any] = [{kind.by: word}]
    if word == kind.default:
        ways += [{}, {kind.by: None}]
    tag = draw(st.sampled_from(ways))
    return {**tag, **made} if draw(st.booleans()) else {**made, **tag}


def broken(kind: Fields, value: dict[str, Any]) -> Problem | None:
    """What the rule of an object finds in it."""

    def get(name: str, *further: str) -> Any:
        found = value.get(name)
        for each in further:
            found = found.get(each) if isinstance(found, dict) else None
        return found

    return None if kind.rule is None else kind.rule(get)


class Place(NamedTuple):
    """A known member or item in a request, and the objects that it is in.

    within: what a change of it bears on; a change of what an object is, on all of that.
    """

    holder: Any
    step: str | int
    within: str
    above: tuple[tuple[Fields, Any, str], ...]


def places(kind: Kind, value: Any, param: str = "", above: Any = ()) -> Iterator[Place]:
    """All that a table knows in a request."""
    if isinstance(kind, Either):
        fitting = [each for each in kind.kinds if _fits(each, value)]
        yield from (place for each in fitting[:1] for place in places(each, value, param, above))
    elif isinstance(kind, ListOf) and isinstance(value, list):
        for index, item in enumerate(value):
            at = f"{param}[{index}]"
            yield Place(value, index, param, above)
            yield from places(kind.item, item, at, above)
    elif isinstance(kind, MapOf) and isinstance(value, dict):
        for name, item in value.items():
            yield Place(value, name, below(param, name), above)
            yield from places(kind.value, item, below(param, name), above)
    elif isinstance(kind, Fields) and isinstance(value, dict):
        inside = (*above, (kind, value, param))
        for name in [name for name in value if name in kind.fields]:
            yield Place(value, name, below(param, name), inside)
            yield from places(kind.fields[name], value[name], below(param, name), inside)
    elif isinstance(kind, Variants) and isinstance(value, dict):
        known = kind.known[value.get(kind.by) or str(kind.default)]
        yield Place(value, kind.by, param, (*above, (known, value, param)))
        yield from places(known, value, param, above)


def _fits(kind: Kind, value: Any) -> bool:
    try:
        Judge(strict=False).check(kind, value, "")
    except InvalidRequest:
        return False
    return True
