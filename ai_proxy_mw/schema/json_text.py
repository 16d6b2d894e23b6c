"""The inside of a JSON string, as it stands in a body, to the text that it means."""

from __future__ import annotations

import msgspec


class BadText(ValueError):
    """It is not the inside of a JSON string. The text says how, to follow "the text"."""


def unescaped(raw: bytes) -> str:
    r"""The text without its escapes (RFC 8259, section 7): `\/` is `/`, `\u002B` is `+`.

    Encoders write more of them than they must: that of PHP the first, that of .NET the second.

    Raises BadText.
    """
    try:
        return msgspec.json.decode(b'"%b"' % raw, type=str) if b"\\" in raw else raw.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadText("has an escape or a character that JSON does not know") from None
