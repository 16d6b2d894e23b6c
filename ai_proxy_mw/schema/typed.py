"""Makes of a table a decoder that judges at C speed.

It takes no more than `judge.py` does: what it refuses is looked at again there, to name the mistake
or to let something new pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from itertools import count
from operator import or_
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec

from ai_proxy_mw.schema.judge import Found
from ai_proxy_mw.schema.spec import (
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

Visit = Callable[[Any, list["Seen"]], None]
"""Appends the media in a decoded value, each with its path from there."""

_NULL = msgspec.Raw(b"null")
_SLICE = 64 * 1024
_numbers = count()


class Seen(NamedTuple):
    """Media with the way to it, from the inside to the outside."""

    way: list[str]
    media: Media
    raw: msgspec.Raw
    declared: Any


class Unfit(ValueError):
    """A value that the typed decoder could not look at."""


class Typed:
    """The decoder of a table. `decode` raises msgspec's errors, and Unfit, for what it refuses."""

    def __init__(self, body: Fields, *, strict: bool) -> None:
        kind, self._visit = _Maker(strict).make(body)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)

    def decode(self, body: bytes) -> list[Found]:
        """The media in a body."""
        decoded = self._decoder.decode(body)
        seen: list[Seen] = []
        if self._visit is not None:
            self._visit(decoded, seen)
        return [_found(each) for each in seen]


class _Maker:
    """Types of msgspec for kinds, each with how media in it are found; None for where none are."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict

    def make(self, kind: Kind) -> tuple[Any, Visit | None]:
        made, visit = self._plain(kind)
        return (made | None if kind.nullable and made is not Any else made), visit

    def _plain(self, kind: Kind) -> tuple[Any, Visit | None]:
        match kind:
            case Flag():
                return bool, None
            case Text():
                return _text(kind), None
            case Number():
                return _limited(float, ge=kind.least, le=kind.most), None
            case Whole():
                return _limited(int, ge=kind.least, le=kind.most), None
            case ListOf():
                item, visit = self.make(kind.item)
                made = _sized(list[item], kind.least, kind.most)  # type: ignore[valid-type]
                return made, None if visit is None else _in_list(visit)
            case MapOf():
                value, _ = self.make(kind.value)  # no table has media in one
                key = _sized(str, 0, kind.longest)
                return _sized(dict[key, value], 0, kind.most), None  # type: ignore[valid-type]
            case Fields():
                return self._struct(kind, {})
            case Variants():
                return self._variants(kind)
            case Either():
                return self._either(kind)
        return Any, None

    def _variants(self, kind: Variants) -> tuple[Any, Visit | None]:
        made = [
            self._struct(fields, {"tag_field": kind.by, "tag": word})
            for word, fields in kind.known.items()
        ]
        return reduce(or_, [each for each, _ in made]), _choosing(made)

    def _either(self, kind: Either) -> tuple[Any, Visit | None]:
        made = [self._plain(each) for each in kind.kinds]
        found = reduce(or_, [each for each, _ in made])
        return found, _choosing(
            (one, visit)
            for each, (type_, visit) in zip(kind.kinds, made, strict=True)
            for one in ((list,) if isinstance(each, ListOf) else get_args(type_) or (type_,))
        )

    def _struct(self, kind: Fields, tag: dict[str, Any]) -> tuple[Any, Visit | None]:
        members: list[Any] = []
        visits: list[tuple[str, Visit]] = []
        media: list[tuple[str, Media]] = []
        for name, each in kind.fields.items():
            if isinstance(each, Media):
                media.append((name, each))
                made: Any = msgspec.Raw
            else:
                made, visit = self.make(each)
                if visit is not None:
                    visits.append((name, visit))
            if name in kind.needed:
                members.append((name, made))
            else:
                members.append((name, made | msgspec.UnsetType, msgspec.UNSET))
        made = msgspec.defstruct(
            f"_Object{next(_numbers)}",
            sorted(members, key=len),  # what must be there comes first
            namespace={} if kind.rule is None else {"__post_init__": _ruled(kind)},
            forbid_unknown_fields=self._strict,
            **tag,
        )
        return made, _in_struct(visits, media) if visits or media else None


def _text(kind: Text) -> Any:
    if kind.choices:
        return Literal[kind.choices]
    return _sized(str, kind.least, kind.most)


def _sized(made: Any, least: int, most: int | None) -> Any:
    return _limited(made, min_length=least or None, max_length=most)


def _limited(made: Any, **limits: Any) -> Any:
    named = {name: limit for name, limit in limits.items() if limit is not None}
    return Annotated[made, msgspec.Meta(**named)] if named else made


def _ruled(kind: Fields) -> Callable[[Any], None]:
    rule = kind.rule
    assert rule is not None

    def check(made: Any) -> None:
        def get(name: str) -> Any:
            value = getattr(made, name)
            return None if value is msgspec.UNSET else value

        if rule(get) is not None:
            raise ValueError

    return check


# -- finding media -----------------------------------------------------------------------------
#
# The way to something is put together on the way back, so that where there is nothing, as in almost
# all of a request, nothing is made.


def _found(seen: Seen) -> Found:
    param = "".join(reversed(seen.way)).removeprefix(".")
    declared = seen.declared if isinstance(seen.declared, str) else None
    return Found(seen.media.media, param, _inside(seen.raw), declared)


def _inside(raw: msgspec.Raw) -> bytes | memoryview:
    """A JSON string without its quotes. Raises Unfit for another value."""
    view = memoryview(raw)
    if bytes(view[:1]) != b'"':
        raise Unfit
    inside = view[1:-1]
    if any(b"\\" in bytes(inside[at : at + _SLICE]) for at in range(0, len(inside), _SLICE)):
        return msgspec.json.decode(raw, type=str).encode("utf-8", "surrogatepass")
    return inside


def _further(seen: list[Seen], since: int, step: str) -> None:
    for each in seen[since:]:
        each.way.append(step)


def _in_list(visit: Visit) -> Visit:
    def look(items: Any, seen: list[Seen]) -> None:
        for index, item in enumerate(items):
            since = len(seen)
            visit(item, seen)
            if len(seen) > since:
                _further(seen, since, f"[{index}]")

    return look


def _choosing(made: Iterable[tuple[Any, Visit | None]]) -> Visit | None:
    """By the type of the value, which is a struct of its own for each variant."""
    visits = {kind: visit for kind, visit in made if visit is not None}

    def look(value: Any, seen: list[Seen]) -> None:
        visit = visits.get(type(value))
        if visit is not None:
            visit(value, seen)

    return look if visits else None


def _in_struct(visits: list[tuple[str, Visit]], media: list[tuple[str, Media]]) -> Visit:
    def look(value: Any, seen: list[Seen]) -> None:
        for name, kind in media:
            raw = getattr(value, name)
            if raw is not msgspec.UNSET and not (kind.nullable and raw == _NULL):
                declared = None if kind.declared is None else getattr(value, kind.declared)
                seen.append(Seen([f".{name}"], kind, raw, declared))
        for name, visit in visits:
            inner = getattr(value, name)
            if inner is None or inner is msgspec.UNSET:
                continue
            since = len(seen)
            visit(inner, seen)
            if len(seen) > since:
                _further(seen, since, f".{name}")

    return look
