"""Finds the first wrong field of a request, by position, in a decoded body.

Slower than the typed decoder, and only asked where that has found something: a mistake, or a kind
of part that is new.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.found import Found
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
    Text,
    Variants,
    Whole,
)

_NAMES: dict[type, str] = {
    bool: "a boolean", str: "a string", int: "an integer", float: "a decimal",
    list: "an array", dict: "an object", type(None): "null",
}  # fmt: skip

_EXPECTED: dict[type[Kind], str] = {
    Flag: "a boolean", Text: "a string", Media: "a string", Number: "a decimal",
    Whole: "an integer", ListOf: "an array", MapOf: "an object", Fields: "an object",
    Variants: "an object",
}  # fmt: skip

_TYPES: dict[type[Kind], tuple[type, ...]] = {
    Flag: (bool,), Text: (str,), Media: (str,), Number: (float, int), Whole: (int,),
    ListOf: (list,), MapOf: (dict,), Fields: (dict,), Variants: (dict,),
}  # fmt: skip


class Judge:
    """Walks over one decoded request. `found` are the media on the way, in their order.

    strict: whether members and parts that no table knows are refused.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self.found: list[Found] = []

    def check(self, kind: Kind, value: Any, param: str) -> None:
        """Raises InvalidRequest with the param of the first mistake."""
        if isinstance(kind, Anything) or (value is None and kind.nullable):
            return
        if isinstance(kind, Either):
            kind = _fitting(kind, value, param)
        elif type(value) not in _TYPES[type(kind)]:
            raise _wrong_type(kind, value, param)
        _CHECKS[type(kind)](self, kind, value, param)

    def _text(self, kind: Text, value: str, param: str) -> None:
        if kind.choices and value not in kind.choices:
            supported = ", ".join(f"'{choice}'" for choice in kind.choices)
            raise InvalidRequest(
                f"Invalid value: {_shown(value)}. Supported values are: {supported}.",
                param=param,
                code="invalid_value",
            )
        _check_size(kind.least, kind.most, len(value), "string", param)

    def _number(self, kind: Number | Whole, value: float, param: str) -> None:
        name = "integer" if isinstance(kind, Whole) else "decimal"
        if kind.least is not None and value < kind.least:
            raise _out_of_range(name, "below minimum", f">= {kind.least}", value, param)
        if kind.most is not None and value > kind.most:
            raise _out_of_range(name, "above maximum", f"<= {kind.most}", value, param)

    def _list(self, kind: ListOf, value: list[Any], param: str) -> None:
        _check_size(kind.least, kind.most, len(value), "array", param)
        for index, item in enumerate(value):
            self.check(kind.item, item, f"{param}[{index}]")

    def _map(self, kind: MapOf, value: dict[str, Any], param: str) -> None:
        _check_size(0, kind.most, len(value), "object", param)
        for name, item in value.items():
            _check_size(0, kind.longest, len(name), "string", param)
            self.check(kind.value, item, below(param, name))

    def _fields(self, kind: Fields, value: dict[str, Any], param: str, by: str = "") -> None:
        for name, item in value.items():
            known = kind.fields.get(name)
            if known is not None:
                self.check(known, item, below(param, name))
                if isinstance(known, Media) and known.declared is not None and item is not None:
                    self._declare(value.get(known.declared))
            elif self._strict and not kind.is_open and name != by:
                raise InvalidRequest(
                    f"Unknown parameter: '{below(param, name)}'.",
                    param=below(param, name),
                    code="unknown_parameter",
                )
        for name in kind.needed:
            if name not in value:
                raise missing(below(param, name))
        problem = None if kind.rule is None else kind.rule(partial(_get, value))
        if problem is not None:
            at = f"{param}.{problem.name}" if param else problem.name  # it may be a way
            raise InvalidRequest(problem.message, param=at, code=problem.code)

    def _media(self, kind: Media, value: str, param: str) -> None:
        inside = msgspec.json.encode(value)[1:-1]  # as it can stand in a body
        self.found.append(Found(kind.media, param, inside))

    def _declare(self, declared: Any) -> None:
        if isinstance(declared, str):
            self.found[-1] = self.found[-1]._replace(declared=declared)

    def _variants(self, kind: Variants, value: dict[str, Any], param: str) -> None:
        at = below(param, kind.by)
        if kind.by not in value and kind.default is None:
            raise missing(at)
        word: Any = value.get(kind.by)
        if word is None and kind.default is not None:
            word = kind.default
        self.check(_WORD, word, at)
        known = kind.known.get(word)
        if known is not None:
            self._fields(known, value, param, kind.by)
        elif self._strict or not kind.is_open or word in kind.elsewhere:
            self.check(Text(choices=tuple(kind.known)), word, at)


_CHECKS: Mapping[type[Kind], Callable[..., None]] = {
    Flag: lambda *_: None,
    Text: Judge._text,  # noqa: SLF001 - a table of its own methods
    Media: Judge._media,  # noqa: SLF001
    Number: Judge._number,  # noqa: SLF001
    Whole: Judge._number,  # noqa: SLF001
    ListOf: Judge._list,  # noqa: SLF001
    MapOf: Judge._map,  # noqa: SLF001
    Fields: Judge._fields,
    Variants: Judge._variants,  # noqa: SLF001
}


def missing(param: str) -> InvalidRequest:
    """The error for a member that must be there and is not."""
    return InvalidRequest(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def _get(value: dict[str, Any], name: str, *further: str) -> Any:
    found = value.get(name)
    for each in further:
        found = found.get(each) if isinstance(found, dict) else None
    return found


def _fitting(kind: Either, value: Any, param: str) -> Kind:
    fitting = [each for each in kind.kinds if type(value) in _TYPES[type(each)]]
    if not fitting:
        raise _wrong_type(kind, value, param)
    lists = [each for each in fitting if isinstance(each, ListOf)]
    if len(lists) < 2 or not value:
        return fitting[0]
    items = Either(kinds=tuple(each.item for each in lists))
    item = _fitting(items, value[0], f"{param}[0]")
    return lists[items.kinds.index(item)]


def _wrong_type(kind: Kind, value: Any, param: str) -> InvalidRequest:
    kinds = kind.kinds if isinstance(kind, Either) else (kind,)
    expected = " or ".join(dict.fromkeys(_EXPECTED[type(each)] for each in kinds))
    return InvalidRequest(
        f"Invalid type for '{param}': expected {expected}, but got {_NAMES[type(value)]} instead.",
        param=param,
        code="invalid_type",
    )


def _out_of_range(name: str, how: str, expected: str, value: float, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{param}': {name} {how} value. Expected a value {expected}, but got "
        f"{_shown(value)} instead.",
        param=param,
        code=f"{name}_{how.replace(' ', '_')}_value".replace("minimum", "min").replace(
            "maximum", "max"
        ),
    )


def _check_size(least: int, most: int | None, size: int, name: str, param: str) -> None:
    if size < least:
        code = f"empty_{name}" if not size else f"{name}_below_min_length"
        raise InvalidRequest(
            f"Invalid '{param}': {name} {'is empty' if not size else 'too short'}. Expected a "
            f"length of at least {least}.",
            param=param,
            code=code,
        )
    if most is not None and size > most:
        raise InvalidRequest(
            f"Invalid '{param}': {name} too long. Expected a length of at most {most}, but got "
            f"{size} instead.",
            param=param,
            code=f"{name}_above_max_length",
        )


def below(param: str, name: str) -> str:
    """The path of a member."""
    # A name that a caller has made up may be of any length and hold anything.
    shown = name if len(name) <= _LONGEST else name[:_LONGEST] + "…"
    if not _PLAIN_NAME.fullmatch(name):  # it could be read as a way of several steps
        return f'{param}["{shown}"]'
    return f"{param}.{shown}" if param else shown


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


_WORD = Text()

_PLAIN_NAME = re.compile(r'[^.\[\]"]+')

_LONGEST = 64
"""Characters of a caller's own words that an error repeats."""
