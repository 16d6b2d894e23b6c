"""One spelling for each host, and patterns of hosts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.fetching.addresses import IPAddress

MAX_NAME = 253
"""Characters of a host name (RFC 1035, section 2.3.4)."""

# RFC 1123, section 2.1, and the underscore, which names of buckets have.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")

# The rule by which browsers take a name for a number (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_INSIDE = (
    *("localhost", "test", "invalid", "local", "onion"),  # RFC 6761, RFC 6762, RFC 7686
    *("internal", "home.arpa"),  # ICANN's resolution 2024.07.29.06, RFC 8375
    *("intranet", "private", "corp", "home", "lan", "localdomain"),  # RFC 6762, appendix G
)
"""Ends of names that are not looked up in the public DNS."""


def read_host(text: str) -> str | IPAddress:
    """The host as it is compared, looked up and asked: a name in lower-case ASCII, or an address.

    Full-width letters, digits and dots become plain ones first (UTS #46) and are then judged.
    An IPv4 address must be written as four decimal numbers, an IPv6 address in brackets.

    Raises ValueError for what is neither.
    """
    if text.startswith("["):
        return _read_v6(text)
    name = _ascii(text)
    labels = name.split(".")
    if len(name) > MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("no host name")
    if _NUMBER.fullmatch(labels[-1]):
        return IPv4Address(name)  # takes the four decimal numbers only
    return name


def is_inside(name: str) -> bool:
    """Whether only a private network or the machine itself could know the name."""
    return "." not in name or any(f".{name}".endswith(f".{end}") for end in _INSIDE)


def _read_v6(text: str) -> IPv6Address:
    if not text.endswith("]") or "%" in text:
        raise ValueError("no IPv6 address")
    return IPv6Address(text[1:-1])


def _ascii(text: str) -> str:
    if text.isascii():
        return text.lower()
    if len(text) > MAX_NAME:  # mapping takes time
        raise ValueError("too long")
    import idna  # noqa: PLC0415 - its tables are large, and few names need them; httpx brings it

    return idna.encode(text, uts46=True).decode("ascii")  # its error is a ValueError


class Hosts:
    """A list of hosts: names, addresses, and `*.example.com` for every name below that one.

    `argument` is where the list was written, for the ConfigurationError.
    """

    def __init__(self, patterns: Iterable[str], argument: str) -> None:
        self._exact: set[str | IPAddress] = set()
        self._ends: list[str] = []
        for pattern in patterns:
            below = pattern.startswith("*.")
            host = _read_pattern(pattern[2:] if below else pattern, pattern, argument)
            if not below:
                self._exact.add(host)
            elif isinstance(host, str):
                self._ends.append(f".{host}")
            else:
                raise _wrong(pattern, argument)

    def __contains__(self, host: str | IPAddress) -> bool:
        if host in self._exact:
            return True
        return isinstance(host, str) and any(host.endswith(end) for end in self._ends)


def _read_pattern(host: str, pattern: str, argument: str) -> str | IPAddress:
    try:
        return read_host(host)
    except ValueError:
        raise _wrong(pattern, argument) from None


def _wrong(pattern: str, argument: str) -> ConfigurationError:
    return ConfigurationError(
        f"Images({argument}=[{pattern!r}]): write a host as 'cdn.example.com', '*.example.com', "
        "'192.0.2.1' or '[2001:db8::1]'"
    )
