"""The address that a call came from, behind reverse proxies that are named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

from ai_proxy_mw._errors import ConfigurationError

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

Address: TypeAlias = IPv4Address | IPv6Address

UNIX = "unix"
"""Stands in `trusted_proxies` for a peer without an address: a unix socket."""

# RFC 7239, section 4: elements parted by `,`, their pairs by `;`, neither of them inside quotes.
# Nothing can match in two ways, so that a caller's header costs no more than its length.
_ELEMENT = re.compile(r'(?:"[^"\\]*"|[^,"])+')
_PAIR = re.compile(r'[ \t]*([^=;,"\s]+)=(?:"([^"\\]*)"[ \t]*|([^;"]*))(?:;|$)')
_MOST_HOPS = 64
"""Further ones are not looked at: nobody stands behind as many proxies."""

_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


class TrustedProxies:
    """Reads `Forwarded` (RFC 7239) and `X-Forwarded-For`, as far as named proxies wrote them.

    networks: the addresses or networks of the proxies, and `"unix"` for a unix socket.

    Who is named is the last one in the chain that is not trusted; what stands before something
    that cannot be read does not count. Where both headers are there and do not name the same
    caller, one of them came from outside, and the caller is unknown.

    Raises ConfigurationError.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        names = None if isinstance(networks, str) else set(networks)
        if names is None:
            raise ConfigurationError("trusted_proxies: write a list of networks: ['10.0.0.0/8']")
        self._unix = UNIX in names
        self._networks = [_network(name) for name in names - {UNIX}]
        self._nobody = not names

    def client(self, peer: str | None, headers: RawHeaders) -> str | None:
        """The caller's address; the peer's own where the peer is not trusted or says nothing."""
        if self._nobody or not self._is_trusted(peer):
            return peer
        chains = (_forwarded(headers), _forwarded_for(headers))
        named = {self._caller(chain) for chain in chains if chain}
        if len(named) > 1:
            return None  # and not the peer: who contradicts it shall not become a trusted address
        return (named.pop() if named else None) or peer

    def _caller(self, chain: list[str]) -> str | None:
        """Whom a chain names; None if its end cannot be read."""
        caller = None
        for item in reversed(chain):
            address = _address(item)
            if address is None:
                break
            caller = str(address)
            if not self._holds(address):
                break
        return caller

    def _is_trusted(self, peer: str | None) -> bool:
        if not peer:
            return self._unix
        address = _address(peer)
        return address is not None and self._holds(address)

    def _holds(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _network(name: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(name)  # type: ignore[arg-type]  # what is no text is refused as well
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"trusted_proxies: {error}; write '10.0.0.0/8'") from None


def _address(text: str) -> Address | None:
    with_port = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((with_port[1] or with_port[2]) if with_port else text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _forwarded_for(headers: RawHeaders) -> list[str]:
    joined = _joined(headers, b"x-forwarded-for")
    return [item.strip() for item in joined.rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]] if joined else []


def _forwarded(headers: RawHeaders) -> list[str]:
    joined = _joined(headers, b"forwarded")
    if joined.count('"') % 2 or "\\" in joined:
        # A caller's open quote reaches into what the proxy has added: where elements begin and
        # end could be read in two ways, so none of them is.
        return [""]
    return [_named(element) for element in _ELEMENT.findall(joined)[-_MOST_HOPS:]]


def _named(element: str) -> str:
    """What stands behind `for=`; an empty text where nobody is named."""
    position = 0
    while pair := _PAIR.match(element, position):
        if pair[1].lower() == "for":
            return (pair[2] or pair[3] or "").strip()
        position = pair.end()
    return ""


def _joined(headers: RawHeaders, name: bytes) -> str:
    # RFC 9110, section 5.3: lines of one name are one list.
    return b",".join(value for key, value in headers if key == name).decode("latin-1")
