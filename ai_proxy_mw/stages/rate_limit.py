"""Counts the call before its body is read, so that who is refused uploads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ai_proxy_mw._errors import ProxyError, Unavailable
from ai_proxy_mw._http import Response
from ai_proxy_mw._identity import Identity
from ai_proxy_mw._limits import MICRO, Limit
from ai_proxy_mw.limiting import headers
from ai_proxy_mw.limiting.limiter import UNCOUNTED
from ai_proxy_mw.limiting.tally import Release, Tally
from ai_proxy_mw.stores.guard import StoreDown

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._types import Handler
    from ai_proxy_mw.limiting.ledger import Standing
    from ai_proxy_mw.limiting.limiter import Limiter

STATUS = "GET /_limits"
"""The endpoint that tells callers how their own limits stand."""


class RateLimitStage:
    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def __call__(self, request: Request, handler: Handler) -> Response:
        if request.endpoint == STATUS:
            return await self._status(request)
        limits = self._limiter.limits_for(request)
        if not limits:
            return await handler(request)
        tally = request.tally = Tally(self._limiter, request, limits)
        try:
            await tally.take_early()
            response = await handler(request)
        except ProxyError as error:
            tally.release()
            error.extra += headers.lines(tally.standings)
            raise
        except BaseException:
            tally.release()
            raise
        finally:
            # The tally knows the request: a circle of the two, and with it the body, would wait
            # for the garbage collector.
            request.tally = None
            self._limiter.watch.look(request, tally.standings)
        # The upstream's own are of the key that all callers share.
        own = [line for line in response.headers if not line[0].startswith(b"x-ratelimit-")]
        response.headers = own + headers.lines(tally.standings)
        if tally.holds_places:
            response.observers.append(Release(tally))
        return response

    async def _status(self, request: Request) -> Response:
        caller = Identity(request.subject, limits=self._limiter.limits_for(request))
        try:
            standings = await self._limiter.status(caller, ip=request.client)
        except StoreDown as error:
            raise Unavailable(UNCOUNTED) from error
        body = msgspec.json.encode({"object": "list", "data": [_told(each) for each in standings]})
        return Response(
            200,
            [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"cache-control", b"no-store"),
            ],
            b"" if request.method == "HEAD" else body,
        )


def _told(standing: Standing) -> dict[str, object]:
    limit = standing.limit
    return {
        "limit": limit.rate,
        "of": limit.of,
        "per": limit.per if isinstance(limit.per, str) else "other",
        "remaining": _readable(limit, standing.remaining),
        "reserved": _readable(limit, standing.reserved),
        "reset_seconds": round(standing.reset, 3),
    }


def _readable(limit: Limit, amount: int) -> int | float:
    return amount / MICRO if limit.of == "usd" else amount
