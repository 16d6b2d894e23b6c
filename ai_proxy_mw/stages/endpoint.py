"""Lets through what is on the allow-list."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from ai_proxy_mw._endpoints import Endpoints, allow
from ai_proxy_mw._errors import NotFound
from ai_proxy_mw._http import Response

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._types import Handler


class EndpointStage:
    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    # Not a coroutine of its own: that would be one more frame to wake for every call.
    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]:
        if request.path is None:
            raise NotFound
        if request.method == "OPTIONS":
            return self._allowed(request.path)
        request.endpoint = self._endpoints.find(request.method, request.path)
        return handler(request)

    async def _allowed(self, path: str) -> Response:
        """Answered here: what the upstream supports is not what we let through."""
        methods = self._endpoints.methods(path)
        return Response(204, [(b"allow", allow(methods).encode("ascii"))])
