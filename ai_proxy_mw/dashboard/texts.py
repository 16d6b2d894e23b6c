"""Texts that came from outside, made fit to be written down."""

from __future__ import annotations

import re
from unicodedata import normalize

LONGEST = 256
"""Characters: a model is whatever a caller writes, however long."""

_FORMULAS = ("=", "+", "-", "@")

# In many countries a spreadsheet ends a cell of such a file at `;`, others do at tabs or `|`. For
# them a quote in the middle of a cell is a letter, and a line end ends the line.
_NEXT_CELL = re.compile(r"([;|\t\r\n]\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")


def shown(text: str) -> str:
    """Not longer than a name may be, and nothing in it that UTF-8 cannot say."""
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def cell(value: object) -> str:
    """A field of CSV (RFC 4180). Before what a spreadsheet would take for a formula stands `'`."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    text = shown(value).replace("\x00", "")
    # Some take off what is blank first, and some take full-width signs for the others.
    if text.startswith(("\t", "\r")) or normalize("NFKC", text.lstrip()[:1]) in _FORMULAS:
        text = f"'{text}"
    text = _NEXT_CELL.sub(r"\1'", text)
    if any(sign in text for sign in '",\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text
