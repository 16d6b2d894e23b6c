"""Looking a host up: at most so long, so often at once, and so many addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from itertools import chain, islice, zip_longest
from typing import Any

from ai_proxy_mw.fetching.addresses import IPAddress
from ai_proxy_mw.fetching.refusals import forbidden, unreachable

Resolve = Callable[[str, int], Awaitable[Iterable[str]]]
"""The IP addresses of a host, as text. Raises OSError where there are none."""

THREADS = 8
"""Look-ups at once; one that the patience has ended for goes on in its thread until the system's
resolver gives up."""

MAX_ADDRESSES = 64
"""More are not looked at, and their host is not asked."""


class SystemResolver:
    """The system's resolver, in threads of its own.

    Not those that the event loop has for all: whoever makes many slow look-ups happen must not keep
    the app from its own.

    getaddrinfo: the system's own function.
    """

    def __init__(self, getaddrinfo: Callable[..., Any] = socket.getaddrinfo) -> None:
        self._getaddrinfo = getaddrinfo
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ai_proxy_mw-look-up")

    async def __call__(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._look_up, host, port)

    def close(self) -> None:
        """End the threads, without waiting for look-ups."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _look_up(self, host: str, port: int) -> list[str]:
        # With its dot: no domain of the machine's search list is put behind the name. As bytes: no
        # second coding of the name, which Python does by an older rule.
        name = f"{host}.".encode("ascii")
        found = self._getaddrinfo(name, port, type=socket.SOCK_STREAM)
        return [str(place[0]) for *_, place in found]


async def addresses(
    resolve: Resolve, host: str, port: int, is_allowed: Callable[[IPAddress], bool]
) -> list[IPAddress]:
    """All addresses of the host, each of them allowed, the families in turn.

    Raises InvalidRequest: `image_unreachable` where there are none or too many,
    `image_url_forbidden` where one of them is not allowed.
    """
    try:
        answer = await resolve(host, port)
    except OSError:
        raise unreachable("its host was not found") from None
    texts = list(islice(dict.fromkeys(answer), MAX_ADDRESSES + 1))
    if not 0 < len(texts) <= MAX_ADDRESSES:
        raise unreachable("its host was not found")
    found = [_read(text) for text in texts]
    if not all(is_allowed(address) for address in found):
        raise forbidden()
    return _interleave(found)


def _read(text: str) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError:
        raise forbidden() from None


def _interleave(found: list[IPAddress]) -> list[IPAddress]:
    """Beginning with the resolver's first (RFC 8305, section 4)."""
    first = [address for address in found if address.version == found[0].version]
    others = [address for address in found if address.version != found[0].version]
    turns = chain.from_iterable(zip_longest(first, others))
    return [address for address in turns if address is not None]
