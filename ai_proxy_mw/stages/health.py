"""Tells load balancers, which have no key, whether calls can be answered; nothing of the inside."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from ai_proxy_mw._http import Response
from ai_proxy_mw.routing.standing import health_of

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._types import Handler
    from ai_proxy_mw.routing.lane import Lane

HEALTH = "GET /_health"
"""The endpoint that tells it."""

_WHILE_STOPPING = 5
"""Seconds after which to ask again: another process will be there by then."""


class HealthStage:
    """stopping: whether the proxy takes no more calls."""

    def __init__(self, lanes: Sequence[Lane], stopping: Callable[[], bool]) -> None:
        self._lanes = lanes
        self._stopping = stopping

    # Not a coroutine of its own: that would be one more frame to wake for every call.
    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]:
        return self._tell(request) if request.endpoint == HEALTH else handler(request)

    async def _tell(self, request: Request) -> Response:
        stopping = self._stopping()
        status = "down" if stopping else health_of(self._lanes)
        body = b'{"status":"%b"}' % status.encode("ascii")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        if status == "down":
            wait = _WHILE_STOPPING if stopping else self._wait()
            headers.append((b"retry-after", b"%d" % wait))
        code = 503 if status == "down" else 200
        return Response(code, headers, b"" if request.method == "HEAD" else body)

    def _wait(self) -> int:
        return max(1, math.ceil(min(lane.breaker.wait for lane in self._lanes)))
