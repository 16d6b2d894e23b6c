"""Hands calls over to the proxy, and its answers to Django."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest

from ai_proxy_mw import asgi, wsgi
from ai_proxy_mw._errors import ProxyError
from ai_proxy_mw.contrib.django._asking import Asked, Identify, aask, ask, check_identify
from ai_proxy_mw.contrib.django._bodies import BodyGoneError, receiver, source, whole_environ
from ai_proxy_mw.contrib.django._pulled import Pulled
from ai_proxy_mw.contrib.django._response import ProxyResponse, broken

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ai_proxy_mw._proxy import AIProxy
    from ai_proxy_mw._types import Send

LEFT = 499
"""The status, after nginx, of a call that was broken off before its answer."""


class Route:
    """Answers Django's requests. Raises ConfigurationError for a proxy that is not for routes."""

    def __init__(self, proxy: AIProxy, identify: Identify) -> None:
        self.proxy = proxy
        self._identify = check_identify(identify)
        self._wsgi = wsgi.RouteDoor(proxy)
        self._asgi = asgi.RouteDoor(proxy)

    def answer(self, request: HttpRequest, path: str) -> ProxyResponse:
        """The answer to a call; `path` is what follows the prefix. Blocks until its head is there.

        Under ASGI it blocks the thread that Django keeps for the call anyway; the event loop does
        the work, then and afterwards.
        """
        if isinstance(request, ASGIRequest):
            return async_to_sync(self.aanswer)(request, path)
        assert isinstance(request, WSGIRequest)
        asked = ask(self._identify, request) if self._asks(request, path) else Asked()
        try:
            environ = whole_environ(request)
        except BodyGoneError as error:
            environ, asked = request.environ, Asked(refusal=error)
        return self._serve(environ, path, asked)

    async def aanswer(self, request: ASGIRequest, path: str) -> ProxyResponse:
        """The same where an event loop runs."""
        asked = await aask(self._identify, request) if self._asks(request, path) else Asked()
        try:
            body = source(request)
        except BodyGoneError as error:
            body, asked = BytesIO(), Asked(refusal=error)
        receive = receiver(body)

        def serve(send: Send) -> Coroutine[Any, Any, None]:
            scope = dict(request.scope)
            return self._asgi.serve(scope, receive, send, path=path, **asked._asdict())

        pulled = Pulled(serve)
        head = await pulled.head()
        lines = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in head["headers"]
        ]
        return ProxyResponse(head["status"], lines, pulled)

    def _serve(self, environ: dict[str, Any], path: str, asked: Asked) -> ProxyResponse:
        heads: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            heads.append((status, headers))

        try:
            content = self._wsgi.serve(environ, start_response, path=path, **asked._asdict())
        except ConnectionError as error:
            return ProxyResponse(LEFT, [], broken(error))
        [(status, lines)] = heads
        return ProxyResponse(int(status[:3]), lines, content)

    def _asks(self, request: HttpRequest, path: str) -> bool:
        """Whether it matters who is calling: not for a preflight, nor for what is not there."""
        try:
            self.proxy.endpoints.find(request.method or "", path)
        except ProxyError:
            return False
        return True
