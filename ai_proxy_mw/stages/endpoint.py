"""Lets through what is on the allow-list."""

from __future__ import annotations

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

    async def __call__(self, request: Request, handler: Handler) -> Response:
        if request.path is None:
            raise NotFound
        if request.method == "OPTIONS":
            # Answered here: what the upstream supports is not what we let through.
            methods = self._endpoints.methods(request.path)
            return Response(204, [(b"allow", allow(methods).encode("ascii"))])
        request.endpoint = self._endpoints.find(request.method, request.path)
        return await handler(request)
