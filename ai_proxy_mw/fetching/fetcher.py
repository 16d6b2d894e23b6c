"""Fetching a picture: the one way from a caller's address to the network.

address -> rules -> look-up -> every IP address checked -> connection to a checked one
   ^                                                                |
   +------------------------ redirect, counted --------------------+
"""

from __future__ import annotations

import asyncio
import ssl
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.fetching.addresses import IPAddress, is_public
from ai_proxy_mw.fetching.cache import Cache, Fetched
from ai_proxy_mw.fetching.look_up import Resolve, SystemResolver, addresses
from ai_proxy_mw.fetching.refusals import too_large, unreachable, unsupported
from ai_proxy_mw.fetching.urls import Rules, WebAddress
from ai_proxy_mw.fetching.wire import Answer, CannotConnect, Wire

if TYPE_CHECKING:
    from ai_proxy_mw._media import Images

ADDRESSES_TRIED = 3
"""IP addresses of a host that are tried, one after the other, until one can be connected to."""

_REDIRECTS = (301, 302, 303, 307, 308)  # RFC 9110, section 15.4

_TYPES = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",  # not registered, and often seen
    "image/webp": "webp",
    "image/gif": "gif",
}

Judge = Callable[[bytes], str]
"""The format of a picture by its bytes; raises InvalidRequest for what may not be sent."""


class Fetcher:
    """Fetches pictures by the owner's rules; may be used in several event loops.

    judge: tells the format of what was fetched, and refuses it.
    resolve: looks hosts up; without it the system's resolver does.
    is_allowed: which IP addresses may be connected to.
    clock: seconds, for the age of what is cached.
    trust: whose certificates are believed; without it the system's.

    Raises ConfigurationError for a list of hosts that cannot be read.
    """

    def __init__(
        self,
        images: Images,
        *,
        judge: Judge,
        resolve: Resolve | None = None,
        is_allowed: Callable[[IPAddress], bool] = is_public,
        clock: Callable[[], float] = time.monotonic,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.images = images
        self._formats = tuple(images.formats)
        self._types = {name: kind for name, kind in _TYPES.items() if kind in self._formats}
        self._accept = ", ".join(self._types)
        self._judge = judge
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._rules = Rules(images, is_allowed)
        self._wire = Wire(trust)
        self._cache = Cache(images.cache_bytes, images.cache_ttl, clock)
        self._by_loop: dict[AbstractEventLoop, _Bench] = {}

    async def fetch(self, url: str, *, param: str | None = None) -> Fetched:
        """The picture at the address, within `Images.timeout`, waiting for a place included.

        param: where in the request the address stands, for the error.

        Raises InvalidRequest with the code `invalid_image_url`, `image_url_forbidden`,
        `image_unreachable`, `image_too_large` or `unsupported_image_format`, or what `judge`
        raises. None of them tells anything of what was found.
        """
        kept = self._cache.get(url)
        if kept is not None:
            return kept
        try:
            fetched = await self._in_time(url, self._rules.read(url))
        except InvalidRequest as error:
            error.param = param or error.param
            raise
        self._cache.put(url, fetched)
        return fetched

    async def aclose(self) -> None:
        """Forget what is cached, and end the running loop's look-ups."""
        self._cache.clear()
        bench = self._by_loop.pop(asyncio.get_running_loop(), None)
        if bench is not None:
            bench.close()

    async def _in_time(self, url: str, web: WebAddress) -> Fetched:
        bench = self._bench()
        try:
            async with asyncio.timeout(self.images.timeout), bench.places:
                return self._judged(await self._follow(url, web, bench.resolve))
        except TimeoutError:
            raise unreachable(f"it did not come within {self.images.timeout:g} s") from None

    async def _follow(self, url: str, web: WebAddress, resolve: Resolve) -> Fetched:
        for _ in range(self.images.max_redirects + 1):
            found = await self._ask(web, resolve)
            if isinstance(found, Fetched):
                return found
            url, web = self._rules.follow(url, found)
        raise unreachable(f"there are more than {self.images.max_redirects} redirects")

    async def _ask(self, web: WebAddress, resolve: Resolve) -> Fetched | str:
        """What the first of the host's IP addresses has that can be connected to."""
        patience = self.images.timeout / ADDRESSES_TRIED
        for address in (await self._addresses(web, resolve))[:ADDRESSES_TRIED]:
            try:
                async with self._wire.ask(web, address, self._accept, patience) as answer:
                    return await self._take(answer)
            except CannotConnect:
                pass  # the next one
        raise unreachable("its host cannot be connected to")

    async def _addresses(self, web: WebAddress, resolve: Resolve) -> Sequence[IPAddress]:
        if isinstance(web.host, str):
            return await addresses(resolve, web.host, web.port, self._is_allowed)
        return (web.host,)  # which the rules have checked

    async def _take(self, answer: Answer) -> Fetched | str:
        """A picture of the format that the head tells, or where a redirect leads."""
        if answer.status in _REDIRECTS and answer.header("location"):
            return answer.header("location")
        declared = self._declared_format(answer)
        limit = self.images.max_bytes
        is_over = _is_over(answer.header("content-length"), limit)
        data = None if is_over else await answer.read(limit)
        if data is None:
            raise too_large(limit)
        if not data:
            raise unreachable("its host's answer is empty")
        return Fetched(data, declared)

    def _declared_format(self, answer: Answer) -> str:
        """What the head says it is. Raises InvalidRequest where it is not worth reading on."""
        if answer.status != 200:
            raise unreachable(f"its host answers with status {answer.status}")
        if answer.header("content-encoding").lower() not in ("", "identity"):
            raise unreachable("its host sends it compressed, which was not asked for")
        media_type = answer.header("content-type").partition(";")[0].strip().lower()
        if media_type not in self._types:
            raise unsupported(self._formats)
        return self._types[media_type]

    def _judged(self, fetched: Fetched) -> Fetched:
        if self._judge(fetched.data) != fetched.format:
            raise unsupported(self._formats)
        return fetched

    def _bench(self) -> _Bench:
        loop = asyncio.get_running_loop()
        return self._by_loop.get(loop) or self._new(loop)

    def _new(self, loop: AbstractEventLoop) -> _Bench:
        bench = _Bench(self.images.max_concurrent, self._resolve)
        # A loop that has ended needs nothing more.
        running = {known: old for known, old in self._by_loop.items() if not known.is_closed()}
        self._by_loop = {**running, loop: bench}
        return bench


class _Bench:
    """What an event loop has of its own: its places, and its threads for look-ups."""

    def __init__(self, places: int, resolve: Resolve | None) -> None:
        self.places = asyncio.Semaphore(places)
        self.resolve = SystemResolver() if resolve is None else resolve

    def close(self) -> None:
        if isinstance(self.resolve, SystemResolver):
            self.resolve.close()


def _is_over(length: str, limit: int) -> bool:
    """Whether a Content-Length is above the limit; Python does not read any number of digits."""
    return len(length) > 19 or int(length or 0) > limit
