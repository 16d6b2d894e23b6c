"""Reads from an answer of the app who is calling."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from ai_proxy_mw._identity import Identity
    from ai_proxy_mw._subrequest_answer import Answer

Read = Callable[["Answer"], "str | Identity | None"]
"""Raises RuntimeError where nobody is named; its text shows no value of the answer."""


def from_header(name: str) -> Read:
    key = name.lower().encode("ascii")

    def read(answer: Answer) -> str:
        values = answer.values(key)
        if len(values) != 1:
            raise RuntimeError(f"the answer has {len(values)} headers {name!r}, and not one")
        return values[0].decode("latin-1")

    return read


def from_member(path: str) -> Read:
    names = path.split(".")

    def read(answer: Answer) -> str:
        found: Any = _json(answer)
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, str):
            return found
        if type(found) is not int:
            raise RuntimeError(f"the answer's JSON has no member {path!r} that is text or a number")
        return str(found)

    return read


def from_json(function: Callable[[Any], str | Identity | None]) -> Read:
    return lambda answer: function(_json(answer))


def _json(answer: Answer) -> Any:
    try:
        return msgspec.json.decode(answer.body or b"")
    except ValueError:
        # Not raised from it: the text of a decoder's error may show what it read.
        raise RuntimeError("the answer is not JSON, or is larger than 64 KiB") from None
