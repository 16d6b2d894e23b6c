"""Values that are secret by their name: of members, header lines, form fields and parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]

# In small letters. Looked for with `find`, which is many times as quick as a pattern of them all.
_NAMES = (
    b"authorization", b"key", b"passw", b"pwd", b"passphrase", b"secret", b"credential", b"cookie",
    b"token", b"bytes",
)  # fmt: skip
# Whose: there are keys of dictionaries, keyboards and music, too.
_OF_KEYS = tuple(
    whose + joint
    for whose in (
        b"api", b"access", b"private", b"account", b"subscription", b"signing", b"encryption",
        b"master", b"auth", b"openai", b"anthropic", b"azure", b"gemini",
    )
    for joint in (b"", b"_", b"-", b" ")
)  # fmt: skip
_BEARER = b"bearer"
_LINES = (b"authorization", b"cookie")
"""Whose value has words, and goes to the end of the line."""
_LISTS = (b"tokens", b"bytes")
"""What was said, a second time, beside its probabilities. Else they are numbers of something."""

# Quotes may be escaped, once for each text of JSON in JSON, and as some writers do even outside.
_QUOTE = rb"(?:\\*+[\"']|\\++u002[27])"
_BLANK = rb"(?:\s|\\+[nrt])*+"
# The length of a name is bounded: each of a row of names would else look at all that follow.
_AFTER_NAME = re.compile(
    rb"([\w-]{0,32}+)(%b?+)(?:%b[:=]%b|\r\n\r\n)(%b?+)" % (_QUOTE, _BLANK, _BLANK, _QUOTE)
)
_AFTER_BEARER = re.compile(rb"[ \t]++([\w.~+/=\\-]{4,}+)")
_WORD = re.compile(rb"(?:[^\s\"\\]|\\[^nrt\"])++")
_LINE = re.compile(rb"(?:[^\"\r\n\\]|\\[^nr\"])++")
_ITEM = re.compile(rb"(?!null\b|true\b|false\b)[^\s,\[\]{}]++")
_LIST = re.compile(rb"\[[^\]]++")


def named_values(data: bytes) -> Iterator[Span]:
    """Where in a body they are."""
    small = data.lower()
    for name in _NAMES:
        at = small.find(name)
        while at >= 0:
            span = _value(data, small, name, at)
            if span:
                yield span
            at = small.find(name, max(at + len(name), span[1] if span else 0))
    at = small.find(_BEARER)
    while at >= 0:
        at += len(_BEARER)
        match = _AFTER_BEARER.match(data, at)
        if match:
            yield match.span(1)
        at = small.find(_BEARER, at)


def _value(data: bytes, small: bytes, name: bytes, at: int) -> Span | None:
    if name == b"key" and not small.endswith(_OF_KEYS, 0, at):
        return None
    match = _AFTER_NAME.match(small, at + len(name))
    if match is None:
        return None
    rest, quoted, quote = match.groups()
    start = match.end()
    is_list = data[start : start + 1] == b"["
    if name in (b"token", b"bytes") and not _is_meant(name + rest, is_list=is_list):
        return None
    if quote:
        return start, _closing(small, start, quote)
    if is_list:
        found = _LIST.match(data, start)
    elif quoted:
        found = _ITEM.match(data, start)
    else:
        found = (_LINE if name in _LINES else _WORD).match(data, start)
    return found.span() if found else None


def _is_meant(name: bytes, *, is_list: bool) -> bool:
    """`token` is a name of credentials, and `max_tokens` a number."""
    return name == b"token" or (name in _LISTS and is_list)


def _closing(data: bytes, start: int, quote: bytes) -> int:
    """Where the text ends that began with that quote, or all does."""
    if quote[-1:] in b"27":
        end = data.find(quote, start)
        return len(data) if end < 0 else end
    depth = len(quote) - 1
    at = start
    while (end := data.find(quote[-1:], at)) >= 0:
        escapes = end - at - len(data[at:end].rstrip(b"\\"))
        # In a text within n texts each quote of its own has 2^n - 1 backslashes before it, and one
        # that belongs to the text as many again, or an odd number of times more.
        if escapes < depth or escapes % (2 * depth + 2) == depth:
            return end - min(escapes, depth)
        at = end + 1
    return len(data)
