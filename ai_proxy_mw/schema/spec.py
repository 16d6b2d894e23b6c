"""The words that the tables of the endpoints are written in: what a value may be.

One table serves three: the decoder that judges at C speed (`typed.py`), the walk that finds which
field is wrong (`judge.py`), and the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

MediaKind = Literal["image", "image_data", "image_link", "audio", "file", "file_link"]


class Get(Protocol):
    """A member of the object under judgement, or one further in, named by the way to it.

    None where it is null or not there.
    """

    def __call__(self, name: str, *further: str) -> Any: ...


class Problem(NamedTuple):
    """What a rule has found: the member, what is wrong with it, and a sentence."""

    name: str
    code: str
    message: str


Rule = Callable[[Get], Problem | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What a value may be. `nullable`: also null."""

    nullable: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Anything(Kind):
    """Whatever JSON can say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag(Kind):
    """True or false."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Text(Kind):
    """A string of `least` to `most` characters, or one of `choices`."""

    least: int = 0
    most: int | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Media(Kind):
    """A string that holds a picture, a sound or a file, or says where it is.

    `declared`: the member beside it that says its format, if there is one.
    """

    media: MediaKind
    declared: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Number(Kind):
    """A number from `least` to `most`."""

    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole(Kind):
    """A whole number from `least` to `most`."""

    least: int | None = None
    most: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ListOf(Kind):
    """An array of `least` to `most` items."""

    item: Kind
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MapOf(Kind):
    """An object with any names, `most` at most, of `longest` characters at most."""

    value: Kind
    most: int | None = None
    longest: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields(Kind):
    """An object. Members that are not named pass, unless the judgement is strict.

    needed: the names that must be there.
    rule: what holds between members; its docstring says it.
    is_open: whether members that are not named pass even then.
    """

    fields: Mapping[str, Kind]
    needed: tuple[str, ...] = ()
    rule: Rule | None = None
    is_open: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Variants(Kind):
    """An object whose member `by` says which of `known` it is.

    is_open: whether one with another word there passes, unjudged, as something new.
    elsewhere: words that are known, and have no place here.
    default: the word that is meant where `by` is null or not there.
    """

    by: str
    known: Mapping[str, Fields]
    is_open: bool = True
    elsewhere: tuple[str, ...] = ()
    default: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Either(Kind):
    """One of several, which JSON's own types tell apart; arrays, the type of their first item."""

    kinds: tuple[Kind, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """What an endpoint takes.

    source: where the provider publishes it.
    """

    endpoint: str
    source: str
    body: Fields = field(repr=False)
