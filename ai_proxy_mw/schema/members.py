"""The members of a JSON object that the corridor must know, each as the bytes that it came as."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from ai_proxy_mw._errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

DECISIVE = (
    "best_of", "fallbacks", "functions", "input", "max_completion_tokens", "max_output_tokens",
    "max_tokens", "messages", "model", "models", "n", "prompt", "stream", "svg", "tools",
)  # fmt: skip
"""What decides on who may and what it costs: nobody may read two meanings out of it."""

KNOWN = (
    *DECISIVE, "instructions", "mcp_servers", "quality", "response_format", "size",
    "stream_options", "system", "text", "web_search_options",
)  # fmt: skip
"""The names that are looked for; of the others nothing is kept, however many there are."""

MOST_VALUES = 250_000
"""In a body: as objects, each takes up to some hundred bytes."""

_SLICE = 64 * 1024
_MARKS = (b",", b"[", b"{")

_MOST_QUOTES = 200_000
"""Outside of known members, where each may be of a member that must be looked at."""

_Known = msgspec.defstruct(
    "_Known", [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in KNOWN]
)
_known: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Known)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_UNSET = msgspec.UNSET
_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# What may be a decisive name, with its letters in any case; and how a letter of one, or the end
# that some see in a NUL, can be written otherwise. The last are `s` and `k` to who minds no
# capitals.
_INITIALS = "".join(sorted({name[0] for name in DECISIVE}))
_NAMED = re.compile(f'"([{_INITIALS}{_INITIALS.upper()}][A-Za-z_]*)"'.encode())
_ESCAPED = re.compile(rb"\\u(?:00[04567]|017f|212a)", re.IGNORECASE)
_ODD_LETTERS = (b"\xc5\xbf", b"\xe2\x84\xaa")

_DECISIVE_NAMES = frozenset(DECISIVE)
_DECISIVE = frozenset(name.encode() for name in DECISIVE)

# Without the possessive `+`, each escape on the way would be kept in mind for going back.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRINGS = re.compile(_STRING)
_SOME_STRINGS = re.compile(rb'(?:[^"]*+%b){1,4096}+' % _STRING)
_NAME = re.compile(rb'[ \t\n\r]*"([^"\\]*+(?:\\.[^"\\]*+)*+)"[ \t\n\r]*:[ \t\n\r]*')
_AFTER = re.compile(rb"[ \t\n\r]*[,}]")
_OPENING = re.compile(rb"[ \t\n\r]*\{")


def members(body: bytes, most: int = MOST_VALUES) -> dict[str, msgspec.Raw]:
    """The known members of the object that a body holds (RFC 8259), as views of it.

    Raises InvalidRequest where it is no JSON object, or one of more than `most` values; and for a
    decisive name that is there twice, or in another spelling: who reads the first of two and who
    reads the last, or who minds capitals and who does not, would see different calls.
    """
    try:
        found = _known.decode(body)
    except _BAD as error:
        raise not_an_object(error) from None
    check_complexity(body, most)
    every = zip(KNOWN, msgspec.structs.astuple(found), strict=True)
    values = {name: value for name, value in every if value is not _UNSET}
    if not _is_plain(body, values):
        _walk(body)
    return values


def not_an_object(error: Exception) -> InvalidRequest:
    """The error for a body that cannot be read; msgspec's words say where."""
    return InvalidRequest(f"The request body is not a JSON object: {error}.", code="invalid_json")


def _is_plain(body: bytes, values: Mapping[str, msgspec.Raw]) -> bool:
    """Whether the decisive names stand in the body just once, those that were found at its top."""
    sighted = [name for name in _NAMED.findall(body) if name.lower() in _DECISIVE]
    if len(sighted) != len(values.keys() & _DECISIVE_NAMES):
        return False
    if b"\\" in body and _ESCAPED.search(body):
        return False
    return body.isascii() or not any(letter in body for letter in _ODD_LETTERS)


def all_members(body: bytes) -> dict[str, msgspec.Raw]:
    """Every member, in their order, as views of the body; of two of one name the last."""
    try:
        if body.count(b'"') > _MOST_QUOTES and _quotes_outside(body) > _MOST_QUOTES:
            raise _too_complex("members")
        return _object.decode(body)
    except _BAD as error:
        raise not_an_object(error) from None


def _quotes_outside(body: bytes) -> int:
    """Those that do not stand in a known member, and so may be of further members."""
    known = _known.decode(body)
    values = msgspec.structs.astuple(known)
    inside = sum(bytes(raw).count(b'"') for raw in values if raw is not msgspec.UNSET)
    return body.count(b'"') - inside


def check_complexity(body: bytes, most: int = MOST_VALUES) -> None:
    """Raises InvalidRequest for more values than may be made objects of. For JSON only."""
    # Each has a comma or a bracket of its own, but these may also stand in texts.
    if len(body) > most and _marks(body) > most and _marks_outside(body, most) > most:
        raise _too_complex("values")


def _marks(body: bytes) -> int:
    found = 0
    for start in range(0, len(body), _SLICE):
        end = start + _SLICE
        for mark in _MARKS:
            # In Base64 there are none, which a search tells ten times as fast as counting does.
            if body.find(mark, start, end) >= 0:
                found += body.count(mark, start, end)
    return found


def _marks_outside(body: bytes, most: int) -> int:
    """Those that do not stand in strings, or some that are more than `most`."""
    found = position = 0
    while found <= most and (some := _SOME_STRINGS.match(body, position)):
        found += _marks(_STRINGS.sub(b"", some[0]))
        position = some.end()
    return found + sum(body.count(mark, position) for mark in _MARKS)


def _too_complex(what: str) -> InvalidRequest:
    return InvalidRequest(f"The request body has too many {what}.", code="request_too_complex")


def _walk(body: bytes) -> None:
    """Look at each member, which takes longer. Raises InvalidRequest for what `members` says."""
    values = all_members(body)
    for name in values:
        if name not in DECISIVE and name.casefold().partition("\0")[0] in DECISIVE:
            raise InvalidRequest(
                f"The request body has {name!r}: write it in small letters.",
                param=name.casefold().partition("\0")[0],
                code="duplicate_parameter",
            )
    _refuse_doubles(body, values)


def _refuse_doubles(body: bytes, values: Mapping[str, msgspec.Raw]) -> None:
    # The decoder keeps the last one of a name. Going on by the bytes of the values that it kept
    # gets to the end only if each name was there once.
    opening = _OPENING.match(body)
    assert opening is not None  # the decoder has found an object
    position = opening.end()
    for _ in values:
        name = _NAME.match(body, position)
        value = None if name is None else values.get(_text(name[1]))
        if name is None or value is None or not body.startswith(memoryview(value), name.end()):
            break
        after = _AFTER.match(body, name.end() + len(memoryview(value)))
        if after is None:
            break
        position = after.end()
    else:
        if not values or body[position - 1 : position] == b"}":
            return
    raise InvalidRequest(
        "The request body has two members of one name.", code="duplicate_parameter"
    )


def _text(name: bytes) -> str:
    return msgspec.json.decode(b'"%b"' % name, type=str) if b"\\" in name else name.decode()
