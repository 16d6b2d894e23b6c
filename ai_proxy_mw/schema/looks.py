"""Finds the media in what the typed decoder has made.

The way to something is put together on the way back, so that where there is nothing, as in almost
all of a request, nothing is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from ai_proxy_mw.schema.found import Found
from ai_proxy_mw.schema.judge import below
from ai_proxy_mw.schema.spec import Media

Look = Callable[[Any, list["Seen"]], None]
"""Appends the media in a decoded value, each with its way from there."""

Looks = dict[type, Look]
"""How media are found in a value of each type; other types, such as that of null, have none."""

NULL = msgspec.Raw(b"null")


class Seen(NamedTuple):
    """Media with the way to it, from the inside to the outside."""

    way: list[str]
    media: Media
    raw: msgspec.Raw
    declared: Any


class Unfit(ValueError):
    """A value that the typed decoder could not look at."""


def as_found(seen: Seen) -> Found:
    """With its param. Raises Unfit for a value that is no string."""
    param = "".join(reversed(seen.way)).removeprefix(".")
    declared = seen.declared if isinstance(seen.declared, str) else None
    return Found(seen.media.media, param, _inside(seen.raw), declared)


def _inside(raw: msgspec.Raw) -> memoryview:
    """A JSON string without its quotes. Raises Unfit for another value."""
    view = memoryview(raw)
    if bytes(view[:1]) != b'"':
        raise Unfit
    return view[1:-1]


def look_at(looks: Looks, value: Any, seen: list[Seen]) -> None:
    """Append the media in a value."""
    look = looks.get(type(value))
    if look is not None:
        look(value, seen)


def _further(seen: Iterable[Seen], step: str) -> None:
    for each in seen:
        each.way.append(step)


def in_list(looks: Looks) -> Look:
    """Looks at each item of an array."""

    def look(items: Any, seen: list[Seen]) -> None:
        for index, item in enumerate(items):
            inner = looks.get(type(item))
            if inner is not None:
                since = len(seen)
                inner(item, seen)
                if len(seen) > since:
                    _further(seen[since:], f"[{index}]")

    return look


def in_map(looks: Looks) -> Look:
    """Looks at each value of an object with any names."""

    def look(values: Any, seen: list[Seen]) -> None:
        for name, value in values.items():
            since = len(seen)
            look_at(looks, value, seen)
            _further(seen[since:], below(".", name)[1:])

    return look


def in_struct(looks: list[tuple[str, Looks]], media: list[tuple[str, Media]]) -> Look:
    """Takes the members that are media, and looks into others."""

    def look(value: Any, seen: list[Seen]) -> None:
        for name, kind in media:
            raw = getattr(value, name)
            if raw is not msgspec.UNSET and not (kind.nullable and raw == NULL):
                declared = None if kind.declared is None else getattr(value, kind.declared)
                seen.append(Seen([f".{name}"], kind, raw, declared))
        for name, inner_looks in looks:
            inner = getattr(value, name)
            inner_look = inner_looks.get(type(inner))
            if inner_look is not None:
                since = len(seen)
                inner_look(inner, seen)
                if len(seen) > since:
                    _further(seen[since:], f".{name}")

    return look
