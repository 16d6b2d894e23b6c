"""Whether an IP address is one of the public internet.

`ipaddress` has `is_global`, whose answers are not those of each other Python version; what is
refused here stands in a table of its own, each network with its source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from ai_proxy_mw._errors import ConfigurationError

IPAddress = IPv4Address | IPv6Address

_PUBLIC_V6 = IPv6Network("2000::/3")
"""All that is given out for the public internet (RFC 4291, section 2.4; IANA's registry)."""

REFUSED: dict[IPv4Network | IPv6Network, str] = {
    ip_network(network): reason
    for network, reason in {
        # IPv4: everything but these is public.
        "0.0.0.0/8": "this network, unspecified (RFC 1122, section 3.2.1.3)",
        "10.0.0.0/8": "private (RFC 1918)",
        "100.64.0.0/10": "carrier-grade NAT (RFC 6598); metadata at 100.100.100.200",
        "127.0.0.0/8": "loopback (RFC 1122, section 3.2.1.3)",
        "168.63.129.16/32": "metadata of a cloud, in a network that looks public",
        "169.254.0.0/16": "link-local (RFC 3927); metadata at 169.254.169.254",
        "172.16.0.0/12": "private (RFC 1918)",
        "192.0.0.0/24": "protocol assignments (RFC 6890); metadata at 192.0.0.192",
        "192.0.2.0/24": "documentation (RFC 5737)",
        "192.31.196.0/24": "AS112 (RFC 7535)",
        "192.52.193.0/24": "multicast relays (RFC 7450)",
        "192.88.99.0/24": "6to4 relays (RFC 7526)",
        "192.168.0.0/16": "private (RFC 1918)",
        "192.175.48.0/24": "AS112 (RFC 7534)",
        "198.18.0.0/15": "benchmarking (RFC 2544)",
        "198.51.100.0/24": "documentation (RFC 5737)",
        "203.0.113.0/24": "documentation (RFC 5737)",
        "224.0.0.0/4": "multicast (RFC 5771)",
        "240.0.0.0/4": "reserved (RFC 1112, section 4), broadcast (RFC 919)",
        # IPv6: only 2000::/3 is public, and of that not these.
        "2001::/23": "protocol assignments (RFC 2928): Teredo (RFC 4380), benchmarking (RFC 5180), "
        "ORCHID (RFC 4843, RFC 7343)",
        "2001:db8::/32": "documentation (RFC 3849)",
        "2002::/16": "6to4, holds an IPv4 address (RFC 3056)",
        "2620:4f:8000::/48": "AS112 (RFC 7534)",
        "3ffe::/16": "6bone, given back (RFC 3701)",
        "3fff::/20": "documentation (RFC 9637)",
        # Outside of 2000::/3; named for those who look for them.
        "::/96": "unspecified, loopback, IPv4-compatible (RFC 4291, sections 2.5.2, 2.5.3, 2.5.5)",
        "::ffff:0:0/96": "IPv4-mapped (RFC 4291, section 2.5.5.2)",
        "::ffff:0:0:0/96": "IPv4-translated (RFC 2765)",
        "64:ff9b::/96": "NAT64, holds an IPv4 address (RFC 6052)",
        "64:ff9b:1::/48": "local NAT64 (RFC 8215)",
        "100::/64": "discard (RFC 6666)",
        "5f00::/16": "segment routing (RFC 9602)",
        "fc00::/7": "unique local (RFC 4193); metadata at fd00:ec2::254, fd20:ce::254",
        "fe80::/10": "link-local (RFC 4291, section 2.5.6)",
        "fec0::/10": "site-local (RFC 3879)",
        "ff00::/8": "multicast (RFC 4291, section 2.7)",
    }.items()
}

_V4 = tuple(network for network in REFUSED if isinstance(network, IPv4Network))
_V6 = tuple(network for network in REFUSED if isinstance(network, IPv6Network))

# ISATAP (RFC 5214, section 6.1): ::0:5efe:a.b.c.d or ::200:5efe:a.b.c.d behind any prefix.
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def is_public(address: IPAddress) -> bool:
    """Whether the address belongs to the public internet and to one machine there.

    Addresses that hold another one (mapped, 6to4, NAT64, Teredo, ISATAP) do not, whatever they
    hold. NAT64 with a prefix of a network's own (RFC 6052, section 2.2) cannot be told from others.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _V4)
    if address.scope_id is not None or address not in _PUBLIC_V6:
        return False
    return not _is_isatap(address) and not any(address in network for network in _V6)


def public_or_in(networks: Iterable[str]) -> Callable[[IPAddress], bool]:
    """Like `is_public`, and true for what is in one of the owner's own networks, too.

    Raises ConfigurationError.
    """
    try:
        own = [ip_network(network) for network in networks]
    except ValueError as error:
        raise ConfigurationError(
            f"Images(networks=...): {error}: write networks like '10.1.2.0/24'"
        ) from None

    def is_allowed(address: IPAddress) -> bool:
        return is_public(address) or any(address in network for network in own)

    return is_allowed if own else is_public


def _is_isatap(address: IPv6Address) -> bool:
    return (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP
