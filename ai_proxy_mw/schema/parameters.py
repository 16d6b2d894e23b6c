"""The parameters of a header's value: `; name=value; name="value"` (RFC 9110, section 5.6.6)."""

from __future__ import annotations

import re

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_WORD})=(?:({_WORD})|"((?:[^"\\]|\\.)*)")[ \t]*')


def read_parameters(text: str) -> dict[str, str] | None:
    """By their names in small letters; None if one is malformed, or there twice.

    Quoted values are given as they stand between the quotes, with their backslashes: who writes
    and who reads them do not agree on what those mean.
    """
    parameters: dict[str, str] = {}
    position = 0
    while position < len(text):
        found = _PARAMETER.match(text, position)
        if found is None or found[1].lower() in parameters:
            return None
        parameters[found[1].lower()] = found[2] or found[3] or ""
        position = found.end()
    return parameters
