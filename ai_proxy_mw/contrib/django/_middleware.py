"""The proxy as a middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import re_path
from django.utils.module_loading import import_string

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._identify import from_route
from ai_proxy_mw._paths import below
from ai_proxy_mw._proxy import AIProxy, of
from ai_proxy_mw.contrib.django._asking import user_id
from ai_proxy_mw.contrib.django._route import Route

Answer = HttpResponseBase | Awaitable[HttpResponseBase]


class ProxyMiddleware:
    """Serves the proxy under its prefix; for `settings.MIDDLEWARE`, after AuthenticationMiddleware.

    `settings.AI_PROXY` has AIProxy's arguments, or `proxy`: an AIProxy with
    `identify=from_route`. Its `identify` is a function of Django's request, sync or async, or the
    dotted path of one; `user_id` without it. Raises ImproperlyConfigured.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Answer]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        self._route = _configured()
        # All URLs are the proxy's own: nothing shall look for others that end in a slash.
        self._urls = (re_path("", self._route.answer),)

    def __call__(self, request: HttpRequest) -> Answer:
        path = self._path(request)
        if path is None:
            return self._get_response(request)
        request.urlconf = self._urls  # type: ignore[assignment]  # patterns will do
        if self._is_async:
            assert isinstance(request, ASGIRequest)
            return self._route.aanswer(request, path)
        return self._route.answer(request, path)

    def _path(self, request: HttpRequest) -> str | None:
        prefix = self._route.proxy.prefix
        if isinstance(request, ASGIRequest):
            return below(prefix, request.scope["path"], (request.script_name or "").rstrip("/"))
        return below(prefix, request.path_info)


def _configured() -> Route:
    options = getattr(settings, "AI_PROXY", None)
    if not isinstance(options, dict):
        raise ImproperlyConfigured(
            'settings.AI_PROXY: write {"upstream": "https://...", "api_key": "..."}, '
            "the arguments of AIProxy"
        )
    try:
        return _route(**options)
    except (ConfigurationError, ImportError, TypeError) as error:
        raise ImproperlyConfigured(f"settings.AI_PROXY: {error}") from error


def _route(*, identify: Any = user_id, proxy: Any = None, **options: Any) -> Route:
    for other in {"anonymous", "api_keys"} & options.keys():
        raise ConfigurationError(
            f"{other}: identify says who is calling, here as a function of Django's request"
        )
    if isinstance(identify, str):
        identify = import_string(identify)
    if proxy is None:
        options["identify"] = from_route
    elif not isinstance(proxy, AIProxy):
        raise ConfigurationError(f"proxy={proxy!r}: give an AIProxy with identify=from_route")
    return Route(of(proxy, options), identify)  # type: ignore[arg-type]  # AIProxy checks them
