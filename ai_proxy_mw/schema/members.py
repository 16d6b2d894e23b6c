"""The members of a JSON object, each as the bytes that it came as."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ai_proxy_mw._errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(rb'[ \t\n\r]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\n\r]*:[ \t\n\r]*')
_AFTER = re.compile(rb"[ \t\n\r]*[,}]")
_OPENING = re.compile(rb"[ \t\n\r]*\{")

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def members(body: bytes) -> dict[str, bytes]:
    """The members of the object that a body holds (RFC 8259).

    Raises InvalidRequest where it is no JSON object, and for a name that is there twice: who
    reads the first of the two and who reads the last would see different calls.
    """
    try:
        found = _object.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The request body is not a JSON object: {error}.") from None
    values = {name: bytes(value) for name, value in found.items()}
    if len(body) != _least_length(values):
        _refuse_doubles(body, values)
    return values


def _least_length(values: Mapping[str, bytes]) -> int:
    """How long the object is without white space, escapes in names, and second members."""
    inside = sum([len(name.encode()) + len(value) + 4 for name, value in values.items()])
    return inside + 1 if values else 2


def _refuse_doubles(body: bytes, values: Mapping[str, bytes]) -> None:
    # The decoder keeps the last one of a name. Walking over the values that it kept, by their
    # bytes, gets to the end only if each name was there once; it costs little, however long
    # the values are.
    opening = _OPENING.match(body)
    assert opening is not None  # the decoder has found an object
    position = opening.end()
    for _ in values:
        name = _NAME.match(body, position)
        value = None if name is None else values.get(_text(name[1]))
        if name is None or value is None or not body.startswith(value, name.end()):
            break
        after = _AFTER.match(body, name.end() + len(value))
        if after is None:
            break
        position = after.end()
    else:
        if not values or body[position - 1 : position] == b"}":
            return
    raise InvalidRequest("The request body has two members of one name.")


def _text(name: bytes) -> str:
    return msgspec.json.decode(b'"%b"' % name, type=str) if b"\\" in name else name.decode()
