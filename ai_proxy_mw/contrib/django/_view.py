"""The proxy as a view."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from django.db.transaction import non_atomic_requests
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, re_path
from django.views.decorators.csrf import csrf_exempt

from ai_proxy_mw.contrib.django._asking import Identify, user_id
from ai_proxy_mw.contrib.django._route import Route

if TYPE_CHECKING:
    from ai_proxy_mw._proxy import AIProxy

View = Callable[..., HttpResponseBase]


def proxy_view(proxy: AIProxy, *, identify: Identify = user_id) -> View:
    """A view that serves the proxy, for WSGI and ASGI alike.

    The URL gives it `path`, what follows the prefix:
    `re_path(r"^v1/(?P<path>.*)$", proxy_view(proxy))`. `identify` takes Django's request, sync or
    async, and says who is calling; PermissionDenied is told as 403. The proxy needs
    `identify=from_route`. Raises ConfigurationError.

    Exempt from CSRF tokens, which API clients do not have: pages of other sites are refused by
    what their browser says of them. Not a coroutine function, so that decorators for plain views
    can stand around it.
    """
    route = Route(proxy, identify)

    def view(request: HttpRequest, path: str = "") -> HttpResponseBase:
        return route.answer(request, f"/{path}")

    # An answer may take minutes, and a transaction must not.
    return non_atomic_requests(csrf_exempt(view))


def proxy_urls(proxy: AIProxy, *, identify: Identify = user_id) -> list[URLPattern]:
    """URL patterns that serve the proxy under its own prefix; see `proxy_view`."""
    view = proxy_view(proxy, identify=identify)
    prefix = re.escape(proxy.prefix.removeprefix("/"))
    return [re_path(rf"^{prefix}\Z", view), re_path(rf"^{prefix}/(?P<path>[\s\S]*)\Z", view)]
