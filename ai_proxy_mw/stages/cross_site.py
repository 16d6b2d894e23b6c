"""Refuses what another site's page sends with our users' cookies (cross-site request forgery)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING

from ai_proxy_mw._cors import CORS
from ai_proxy_mw._errors import ConfigurationError, Forbidden

if TYPE_CHECKING:
    from ai_proxy_mw._http import Headers, Request, Response
    from ai_proxy_mw._types import Handler, RawHeaders

# Of plain http and of TLS. That a page of the other would pass costs nothing: it is the same host.
_PORT = re.compile(rb":(?:80|443)$")

_SAFE = ("GET", "HEAD")  # RFC 9110, section 9.2.1: they spend nothing


class CrossSiteStage:
    """Reads Sec-Fetch-Site (Fetch Metadata, section 2.3), which a page cannot forge.

    Browsers leave it out where the app is served without TLS, and older ones always do. There
    the page's origin must be that of the host it calls.

    `cors` allows the origins whose pages may send cookies; `trusted_origins` are further ones,
    for an app whose own CORS middleware stands around the proxy.

    Browsers send cookies and passwords of their own accord, but a bearer token or an `x-api-key`
    only after a preflight, which has then been allowed. Clients that are no browsers send neither
    Sec-Fetch-Site nor Origin; nobody makes those call against their will.
    """

    def __init__(self, cors: CORS | None, trusted_origins: Iterable[str]) -> None:
        self._allowed = [] if cors is None or not cors.allow_credentials else [cors]
        if trusted_origins:
            self._allowed.append(_origins(trusted_origins))

    # Not a coroutine of its own: that would be one more frame to wake for every call.
    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]:
        said = request.said
        from_a_page = b"origin" in said or b"sec-fetch-site" in said
        if from_a_page and request.method not in _SAFE and _is_cross_site(request.raw_headers):
            self._check(request.headers)
        return handler(request)

    def _check(self, headers: Headers) -> None:
        origin = headers.get("origin") or ""
        if _brings_a_token(headers) or any(cors.allows_origin(origin) for cors in self._allowed):
            return
        raise Forbidden(
            "Pages of other sites may not call here. (If this page is the app's own, "
            "trusted_origins= must name its origin.)"
        )


def _is_cross_site(headers: RawHeaders) -> bool:
    origin = b""
    hosts = []
    is_told = False
    for name, value in headers:
        if name == b"sec-fetch-site":
            if value not in (b"same-origin", b"none"):
                return True
            is_told = True
        elif name == b"origin":
            origin = value
        elif name in (b"host", b"x-forwarded-host"):
            # The latter can be anybody's word, but a page cannot send it without a preflight.
            hosts += value.split(b",")
    if not origin or is_told:
        return False
    page = _PORT.sub(b"", origin.lower().partition(b"://")[2])  # nothing for `null`
    return not page or page not in [_PORT.sub(b"", host.strip().lower()) for host in hosts]


def _origins(trusted: Iterable[str]) -> CORS:
    try:
        # With credentials, so that `*` is refused.
        origins = trusted if isinstance(trusted, str) else list(trusted)
        return CORS(allow_origins=origins, allow_credentials=True)
    except ConfigurationError as error:
        raise ConfigurationError(f"trusted_origins: {error}") from None


def _brings_a_token(headers: Headers) -> bool:
    authorization = headers.get("authorization") or ""
    return authorization[:7].lower() == "bearer " or "x-api-key" in headers
