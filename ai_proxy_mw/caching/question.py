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
        asked = canonical(members, left_out)
        others = [_sorted.encode([name, members[name]]) for name in left_out if name in members]
    except _BAD as error:
        raise Unkeyable(f"it is no JSON object: {error}") from None
    if not _kept_all(body, [asked, *others]):
        _look_closely(body)
    return Question(members, asked)


def decode(body: bytes) -> dict[str, Any]:
    """The members of a body. Raises Unkeyable, as `read` does."""
    return read(body).members


def canonical(members: Mapping[str, Any], left_out: Collection[str] = ()) -> bytes:
    """Sorted, compact JSON of the members that are not left out."""
    if not members.keys().isdisjoint(left_out):
        members = {name: value for name, value in members.items() if name not in left_out}
    return _sorted.encode(members)


def _kept_all(body: bytes, encoded: list[bytes]) -> bool:
    """Whether what was encoded again has every member of the body; False may also be "perhaps".

    All quotes are counted. Each stands at an end of a string, or inside of one, where JSON writes
    it as `\\"` or, which is ruled out here, as `\\u0022`; the encoder writes the first. So a string
    has the same number of quotes in both, and both have as many if and only if they have the
    same strings. A member that the decoder has dropped took at least the two quotes of its name.
    """
    if b"\\" in body and _HIDDEN_QUOTE in body:
        return False
    return body.count(_QUOTE) == sum(text.count(_QUOTE) for text in encoded)


def _look_closely(body: bytes) -> None:
    try:
        refuse_doubles(body)
    except InvalidRequest as error:
        raise Unkeyable(error.message) from None
