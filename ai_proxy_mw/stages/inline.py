"""Puts pictures that are given by their address into the call, for upstreams that want them so."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ai_proxy_mw._errors import InvalidRequest

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._types import Handler
    from ai_proxy_mw.fetching.cache import Fetched
    from ai_proxy_mw.fetching.fetcher import Fetcher
    from ai_proxy_mw.schema.call import Call
    from ai_proxy_mw.schema.pictures import Picture

_PLAIN = re.compile(r'[^"…]+')
_STEP = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")


class InlineStage:
    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._max_total_bytes = fetcher.images.max_total_bytes

    async def __call__(self, request: Request, handler: Handler) -> Response:
        call = request.call
        if call is not None:
            links = [picture for picture in call.pictures if picture.url is not None]
            if links:
                _check_ways(links)
                sent = sum(picture.size for picture in call.pictures)
                fetched = await self._fetch(links, self._max_total_bytes - sent)
                # Tens of megabytes at the worst, which would hold up all other calls.
                request.call = await asyncio.to_thread(_inlined, call, links, fetched)
        return await handler(request)

    async def _fetch(self, links: Sequence[Picture], room: int) -> list[Fetched]:
        async def fetch(link: Picture) -> Fetched:
            nonlocal room
            assert link.url is not None
            fetched = await self._fetcher.fetch(link.url, param=link.param)
            room -= len(fetched.data) * times[link.url]
            if room < 0:
                raise InvalidRequest(
                    f"The pictures of this request have more than {self._max_total_bytes} bytes.",
                    param=link.param,
                    code="image_too_large",
                )
            return fetched

        # One address that is there twice is fetched once, and takes its room twice.
        times = Counter(link.url for link in links)
        first = {link.url: link for link in reversed(links)}
        tasks = {url: asyncio.create_task(fetch(link)) for url, link in first.items()}
        try:
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
        return [tasks[link.url].result() for link in links]


def _check_ways(links: Sequence[Picture]) -> None:
    # The names of a prompt's variables are the caller's own; such are written in quotes, or cut.
    for link in links:
        if not _PLAIN.fullmatch(link.param):
            message = "Give the variable of a picture a short name without dots and brackets."
            raise InvalidRequest(message, param=link.param, code="invalid_value")


def _inlined(call: Call, links: Sequence[Picture], fetched: Sequence[Fetched]) -> Call:
    members: dict[str, Any] = {}
    for link, picture in zip(links, fetched, strict=True):
        top, *way, last = [name or int(index) for name, index in _STEP.findall(link.param)]
        place = members.setdefault(str(top), call.get(str(top)))
        for step in way[:-1]:
            place = place[step]
        _put(place, way[-1], last, picture)
    return call.replace(**members)


def _put(place: Any, parent: Any, last: Any, picture: Fetched) -> None:
    data = b64encode(picture.data).decode("ascii")
    mime = f"image/{picture.format}"
    if place[parent].get("type") == "url":  # the Anthropic shape
        place[parent] = {"type": "base64", "media_type": mime, "data": data}
    else:
        place[parent][last] = f"data:{mime};base64,{data}"
