"""Data URLs (RFC 2397), of which only those in Base64 are taken."""

from __future__ import annotations

import re
from typing import NamedTuple

from ai_proxy_mw.schema.json_text import BadText, unescaped

_SCHEME = b"data:"

_MOST_HEAD = 1024
"""Characters before the comma."""

_TOKEN = r"[!#$&^_.+a-z0-9-]+"  # noqa: S105 (RFC 6838, section 4.2: the names of media types)
_HEAD = re.compile(rf"data:({_TOKEN}/{_TOKEN})?((?:;{_TOKEN}=[^;,\s]*)*);base64", re.IGNORECASE)


class BadDataUrl(ValueError):
    """What is wrong with it, to follow "the data URL"."""


class DataUrl(NamedTuple):
    """`media_type` is in small letters and without parameters, empty where none is declared.

    `text` is what stands behind the comma, a part of what was given and not a copy.
    """

    media_type: str
    text: memoryview


def is_data_url(raw: bytes | memoryview) -> bool:
    """Whether it begins as one, in letters of any case."""
    return bytes(raw[: len(_SCHEME)]).lower() == _SCHEME


def read_data_url(raw: bytes | memoryview) -> DataUrl:
    """Take one apart: `data:<media type>[;name=value];base64,<text>`.

    raw: the inside of a JSON string as it stands in a body, with its escapes.

    Nothing is said about the text, which `Base64Text` reads. Spaces are refused though browsers
    drop some of them: who reads it next may not.

    Raises BadDataUrl.
    """
    view = memoryview(raw)
    comma = bytes(view[:_MOST_HEAD]).find(b",")
    if comma < 0:
        raise BadDataUrl("has no comma in front of its data")
    try:
        head = unescaped(bytes(view[:comma]))
    except BadText as error:
        raise BadDataUrl(str(error)) from None
    found = _HEAD.fullmatch(head)
    if found is None:
        raise BadDataUrl("must begin with data:, a media type and ;base64,")
    return DataUrl((found[1] or "").lower(), view[comma + 1 :])
