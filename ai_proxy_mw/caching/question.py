"""What a body asks, in a form that is the same for all who ask it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.doubles import refuse_doubles

_object = msgspec.json.Decoder(dict[str, Any])
_sorted = msgspec.json.Encoder(order="sorted")
_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_QUOTE = b'"'
_IN_THEIR_ORDER = ("functions", "response_format", "text", "tools")
"""Members that hold JSON schemas: a model writes its answer in the order of their properties."""
_HIDDEN_QUOTE = b"\\u0022"


class Unkeyable(Exception):
    """Nobody can say what a body asks, so that its answer is good for nobody else."""


class Question(NamedTuple):
    """The members of a body, and its canonical form without those that were left out."""

    members: dict[str, Any]
    canonical: bytes


def read(body: bytes, left_out: Collection[str] = ()) -> Question:
    """What a body asks. Raises Unkeyable.

    Also for two members of one name in one object, however deep: what is kept under the meaning
    that our decoder sees could be the answer to the one that another decoder sees, upstream.
    """
    try:
        members = _object.decode(body)
        others = members.keys() & left_out
        asked = canonical(members, others)
        rest = canonical({name: members[name] for name in others}) if others else b""
    except _BAD as error:
        raise Unkeyable(f"it is no JSON object: {error}") from None
    if not _kept_all(body, asked, rest):
        _look_closely(body)
    return Question(members, asked)


def canonical(members: Mapping[str, Any], left_out: Collection[str] = ()) -> bytes:
    """Sorted, compact JSON of the members that are not left out."""
    if left_out:
        members = {name: value for name, value in members.items() if name not in left_out}
    if not members.keys().isdisjoint(_IN_THEIR_ORDER):
        members = {name: _kept_in_order(name, value) for name, value in members.items()}
    return _sorted.encode(members)


def _kept_in_order(name: str, value: Any) -> Any:
    return msgspec.Raw(msgspec.json.encode(value)) if name in _IN_THEIR_ORDER else value


def _kept_all(body: bytes, asked: bytes, rest: bytes) -> bool:
    """Whether what was encoded again has every member of the body; False may also be "perhaps".

    It has the strings of the body but those of members that the decoder has dropped. Each string
    has the same number of quotes in both: one at either end, and those inside, which JSON writes
    as `\\"` or as `\\u0022`; the encoder writes the first, and the other is ruled out here. So
    both have as many if and only if nothing was dropped, whose name alone takes two.
    """
    if b"\\" in body and _HIDDEN_QUOTE in body:
        return False
    return body.count(_QUOTE) == asked.count(_QUOTE) + rest.count(_QUOTE)


def _look_closely(body: bytes) -> None:
    try:
        refuse_doubles(body)
    except InvalidRequest as error:
        raise Unkeyable(error.message) from None
