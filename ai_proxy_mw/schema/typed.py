"""Makes of a table a decoder that judges at C speed.

It takes no more than `judge.py` does: what it refuses is looked at again there, to name the mistake
or to let something new pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from itertools import count
from operator import or_
from typing import Annotated, Any, Literal

import msgspec

from ai_proxy_mw.schema.found import Found
from ai_proxy_mw.schema.looks import (
    NULL,
    Looks,
    Seen,
    Unfit,
    as_found,
    in_list,
    in_map,
    in_struct,
    look_at,
)
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

Made = tuple[Any, Looks]
"""A type for the decoder, and how media are found in what it makes."""

_OBJECT = msgspec.defstruct("_Object", [], gc=False)
"""Any object; of what is in it nothing is kept, so that it takes no memory."""

_NOTHING: Mapping[str, Any] = {}
_numbers = count()

_ESCAPED_LETTER = re.compile(rb"\\u00[4567]")


class Typed:
    """The decoder of a table.

    strict: whether members and parts that no table knows are refused.
    """

    def __init__(self, body: Fields, *, strict: bool) -> None:
        maker = _Maker(strict)
        kind, looks = maker.make(body)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)
        self._looks = looks
        names = "|".join(sorted(maker.media_names))
        self._media_names = re.compile(f'"(?:{names})"'.encode()) if names else None

    def may_hold_media(self, body: bytes) -> bool:
        """Whether a member that media stand in is in a body, wherever it is and however written.

        Of two members of one name the decoder sees one, and media may be in the other.
        """
        if self._media_names is None:
            return False
        if self._media_names.search(body):
            return True
        return b"\\" in body and _ESCAPED_LETTER.search(body) is not None

    def decode(self, body: bytes) -> list[Found]:
        """The media in a body.

        Raises msgspec.DecodeError, UnicodeDecodeError, RecursionError or Unfit for what it refuses.
        """
        seen: list[Seen] = []
        look_at(self._looks, self._decoder.decode(body), seen)
        return [as_found(each) for each in seen]


class _Maker:
    """Types of msgspec for kinds, each with how media in it are found.

    `media_names` are the names of the members that they stand in.
    """

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self.media_names: set[str] = set()

    def make(self, kind: Kind) -> Made:
        made, looks = self._plain(kind)
        return (made | None if kind.nullable and made is not msgspec.Raw else made), looks

    def _plain(self, kind: Kind) -> Made:
        match kind:
            case Flag():
                return bool, {}
            case Text():
                return _text(kind), {}
            case Number():
                return _limited(float, ge=kind.least, le=kind.most), {}
            case Whole():
                return _limited(int, ge=kind.least, le=kind.most), {}
            case ListOf():
                item, looks = self.make(kind.item)
                made = _sized(list[item], kind.least, kind.most)  # type: ignore[valid-type]
                return made, {list: in_list(looks)} if looks else {}
            case MapOf():
                return self._map(kind)
            case Fields():
                return self._struct(kind)
            case Variants():
                return self._variants(kind)
            case Either():
                return self._either(kind)
        return msgspec.Raw, {}

    def _map(self, kind: MapOf) -> Made:
        if isinstance(kind.value, Anything) and kind.most is None and kind.longest is None:
            return _OBJECT, {}
        value, looks = self.make(kind.value)
        key = _sized(str, 0, kind.longest)
        made = _sized(dict[key, value], 0, kind.most)  # type: ignore[valid-type]
        return made, {dict: in_map(looks)} if looks else {}

    def _variants(self, kind: Variants) -> Made:
        words = [word for word in kind.known if word != kind.default]
        if kind.default is None:
            return self._tagged(kind, words)
        # msgspec cannot tell one without a tag from others that have one.
        named = {kind.by: Literal[kind.default] | None}
        default = self._struct(kind.known[kind.default], more=named)
        return _trying([default, self._tagged(kind, words)] if words else [default], kind)

    def _tagged(self, kind: Variants, words: list[str]) -> Made:
        if len(words) == 1:  # alone, its tag might be missing
            word = words[0]
            named = {kind.by: Literal[word]}
            return self._struct(kind.known[word], more=named, needed=(kind.by,))
        return _union(
            [
                self._struct(kind.known[word], tag={"tag_field": kind.by, "tag": word})
                for word in words
            ]
        )

    def _either(self, kind: Either) -> Made:
        # Media among others are rare, and left to the judge.
        kinds = [each for each in kind.kinds if not isinstance(each, Media)]
        made = [self._plain(each) for each in kinds]
        if sum(isinstance(each, ListOf) for each in kinds) > 1:
            return _trying(made, kind)  # msgspec cannot tell arrays apart
        return _union(made)

    def _struct(
        self,
        kind: Fields,
        *,
        tag: Mapping[str, Any] = _NOTHING,
        more: Mapping[str, Any] = _NOTHING,
        needed: tuple[str, ...] = (),
    ) -> Made:
        looks: list[tuple[str, Looks]] = []
        media: list[tuple[str, Media]] = []
        types = dict(more)
        needed = kind.needed + needed
        for name, each in kind.fields.items():
            if any(isinstance(one, Media) for one in getattr(each, "kinds", (each,))):
                self.media_names.add(name)
            if isinstance(each, Media):
                media.append((name, each))
                types[name] = msgspec.Raw
            else:
                types[name], inner = self.make(each)
                if inner:
                    looks.append((name, inner))
        made = msgspec.defstruct(
            f"_Object{next(_numbers)}",
            # What must be there comes first.
            [(name, types[name]) for name in needed]
            + [
                (name, type_ | msgspec.UnsetType, msgspec.UNSET)
                for name, type_ in types.items()
                if name not in needed
            ],
            namespace={} if kind.rule is None else {"__post_init__": _ruled(kind)},
            forbid_unknown_fields=self._strict and not kind.is_open,
            gc=False,  # JSON has no cycles
            **tag,
        )
        return made, {made: in_struct(looks, media)} if looks or media else {}


def _text(kind: Text) -> Any:
    if kind.choices:
        return Literal[kind.choices]
    return _sized(str, kind.least, kind.most)


def _sized(made: Any, least: int, most: int | None) -> Any:
    return _limited(made, min_length=least or None, max_length=most)


def _limited(made: Any, **limits: Any) -> Any:
    named = {name: limit for name, limit in limits.items() if limit is not None}
    return Annotated[made, msgspec.Meta(**named)] if named else made


def _union(made: list[Made]) -> Made:
    looks: Looks = {}
    for _, each in made:
        looks |= each
    return reduce(or_, [type_ for type_, _ in made]), looks


def _trying(made: list[Made], kind: Kind) -> Made:
    """Takes a value as it came, and decodes it as the first of several that fits."""
    if kind.nullable:
        made = [*made, (None, {})]
    decoders = [(msgspec.json.Decoder(type_), looks) for type_, looks in made]

    def look(raw: Any, seen: list[Seen]) -> None:
        for decoder, looks in decoders:
            try:
                value = decoder.decode(raw)
            except msgspec.ValidationError:
                continue
            look_at(looks, value, seen)
            return
        raise Unfit

    return msgspec.Raw, {msgspec.Raw: look}


def _ruled(kind: Fields) -> Callable[[Any], None]:
    rule = kind.rule
    assert rule is not None

    def check(made: Any) -> None:
        def get(name: str, *further: str) -> Any:
            value = getattr(made, name, None)
            for each in further:
                value = getattr(value, each, None)
            is_null = value is msgspec.UNSET or (type(value) is msgspec.Raw and value == NULL)
            return None if is_null else value

        if rule(get) is not None:
            raise ValueError

    return check
