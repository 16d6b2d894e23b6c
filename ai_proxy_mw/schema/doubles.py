"""Finds members of one name in one object, however deep.

A decoder keeps one of them and tells nobody; what was judged would not be what another decoder,
upstream, reads. At the top of the body `members.py` sees to it, for each call; deeper down it
matters where somebody has looked at what is there: media, checks of the app.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.members import check_complexity, not_an_object

_BEGINNING = 48
"""Bytes of a long string that it is looked for by."""


def refuse_doubles(body: bytes, long_strings: Iterable[bytes | memoryview] = ()) -> None:
    """Raises InvalidRequest for two members of one name in one object.

    long_strings: what stands in the body, in its order, and need not be looked at: the inside of
        JSON strings as they are written. It only saves memory.
    """
    rest = _without(body, long_strings)
    check_complexity(rest)
    try:
        json.loads(rest, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        # Also for numbers of thousands of digits, which the other decoder took for text.
        raise not_an_object(error) from None


def _once(pairs: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) < len(pairs):
        twice = next(name for name in names if sum(name == other for other, _ in pairs) > 1)
        raise InvalidRequest(
            f"The request body has two members {twice[:64]!r} in one object.",
            code="duplicate_parameter",
        )


def _without(body: bytes, long_strings: Iterable[bytes | memoryview]) -> bytes:
    pieces = []
    position = 0
    for text in long_strings:
        # From the quote on: nothing that is cut out begins in the middle of an escape.
        start = _find(body, text, position)
        if start is not None:
            pieces.append(body[position:start])
            position = start + len(text)
    return b"".join([*pieces, body[position:]]) if pieces else body


def _find(body: bytes, text: bytes | memoryview, position: int) -> int | None:
    if len(text) <= _BEGINNING:
        return None
    beginning = b'"' + text[:_BEGINNING]
    start = body.find(beginning, position)
    while start >= 0 and not body.startswith(text, start + 1):
        start = body.find(beginning, start + 1)
    return start + 1 if start >= 0 else None
