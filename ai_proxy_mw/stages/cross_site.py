"""Refuses what another site's page sends with our users' cookies (cross-site request forgery)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ai_proxy_mw._cors import CORS
from ai_proxy_mw._errors import ConfigurationError, Forbidden

if TYPE_CHECKING:
    from ai_proxy_mw._http import Headers, Request, Response
    from ai_proxy_mw._types import Handler

_SAFE = ("GET", "HEAD")  # RFC 9110, section 9.2.1: they spend nothing


class CrossSiteStage:
    """Reads Sec-Fetch-Site (Fetch Metadata, section 2.3), which a page cannot forge.

    `cors` allows the origins whose pages may send cookies; `trusted_origins` are further ones,
    for an app whose own CORS middleware stands around the proxy.

    Browsers send cookies and passwords of their own accord, but a bearer token or an `x-api-key`
    only after a preflight, which has then been allowed. Clients that are no browsers do not send
    Sec-Fetch-Site; nobody makes those call against their will.
    """

    def __init__(self, cors: CORS | None, trusted_origins: Iterable[str]) -> None:
        self._allowed = [] if cors is None or not cors.allow_credentials else [cors]
        if trusted_origins:
            self._allowed.append(_origins(trusted_origins))

    async def __call__(self, request: Request, handler: Handler) -> Response:
        if request.method not in _SAFE:
            for name, value in request.raw_headers:
                if name == b"sec-fetch-site" and value not in (b"same-origin", b"none"):
                    self._check(request.headers)
        return await handler(request)

    def _check(self, headers: Headers) -> None:
        origin = headers.get("origin") or ""
        if _brings_a_token(headers) or any(cors.allows_origin(origin) for cors in self._allowed):
            return
        raise Forbidden("Pages of other sites may not call here.")


def _origins(trusted: Iterable[str]) -> CORS:
    try:
        return CORS(allow_origins=trusted if isinstance(trusted, str) else list(trusted))
    except ConfigurationError as error:
        raise ConfigurationError(f"trusted_origins: {error}") from None


def _brings_a_token(headers: Headers) -> bool:
    authorization = headers.get("authorization") or ""
    return authorization[:7].lower() == "bearer " or "x-api-key" in headers
