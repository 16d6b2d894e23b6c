"""Addresses of pictures and files elsewhere: whether they are written as such, no more."""

from __future__ import annotations

import re

from ai_proxy_mw.schema.json_text import BadText, unescaped

MAX_LINK = 8192
"""Characters of an address."""

_LONGEST_ESCAPE = 6

_SCHEME = re.compile(r"https?://", re.IGNORECASE)

# C0 and C1 controls, and spaces of any script: readers of addresses drop them or stop at them.
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\x9f\s\ufeff\u200b-\u200f\u2028-\u202e]")

# The URL standard, "forbidden domain code point"; a number or an address of IPv6 in brackets.
_AUTHORITY = re.compile(r"(?:[^#%/:<>?@\[\\\]^|]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?", re.IGNORECASE)


class BadLink(ValueError):
    """What is wrong with the address, to follow "the address"."""


def read_link(raw: bytes | memoryview) -> str:
    """The http or https address in a JSON string.

    raw: the inside of the string as it stands in a body, with its escapes.

    Where it leads is another question, which is for who fetches it.

    Raises BadLink.
    """
    if len(raw) > _LONGEST_ESCAPE * MAX_LINK:
        raise BadLink(f"is longer than {MAX_LINK} characters")
    try:
        text = unescaped(bytes(raw))
    except BadText as error:
        raise BadLink(str(error)) from None
    _check_link(text)
    return text


def _check_link(text: str) -> None:
    if len(text) > MAX_LINK:
        raise BadLink(f"is longer than {MAX_LINK} characters")
    if _UNSEEN.search(text):
        raise BadLink("has spaces, line breaks or control characters in it")
    if "\\" in text:
        raise BadLink("has a backslash in it")
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise BadLink("must begin with http:// or https://")
    authority = re.split(r"[/?#]", text[scheme.end() :], maxsplit=1)[0]
    if "@" in authority:
        raise BadLink("must not hold a user name or password")
    host = _AUTHORITY.fullmatch(authority)
    if host is None or int(host[1] or 0) > 65535:
        raise BadLink("has no host that can be read")
