"""Answers preflights, and lets pages on other origins read what they may (Fetch, section 3.3).

The outermost stage, so that errors carry the headers too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ai_proxy_mw._cors import ALL_METHODS
from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw._http import Response

if TYPE_CHECKING:
    from ai_proxy_mw._cors import CORS
    from ai_proxy_mw._http import Headers, Request
    from ai_proxy_mw._types import Handler, RawHeaders, Stage

_ALLOW_ORIGIN = b"access-control-allow-origin"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9110, section 5.6.2
_ASKED = (
    "Access-Control-Request-Method, Access-Control-Request-Headers, "
    "Access-Control-Request-Private-Network"
)


class CorsStage:
    """`errors` gives a refused preflight the shape and the request id that every error has."""

    def __init__(self, cors: CORS, errors: Stage) -> None:
        self._errors = errors
        self._cors = cors
        self._policy = _Policy(cors)
        self._any_origin = cors.any_origin
        vary = ", ".join([*([] if cors.any_origin else ["Origin"]), _ASKED])
        self._preflight_vary = (b"vary", vary.encode("ascii"))
        self._vary: RawHeaders = [(b"vary", b"Origin")]
        self._shared = _readable(cors)
        self._listed: dict[bytes, RawHeaders] = {
            origin.encode("ascii"): [(_ALLOW_ORIGIN, origin.encode("ascii")), *self._shared]
            for origin in cors.allow_origins
        }
        self._has_pattern = cors.origin_pattern is not None

    async def __call__(self, request: Request, handler: Handler) -> Response:
        if request.method == "OPTIONS" and _is_preflight(request.headers):
            response = await self._errors(request, self._policy.preflight)
            response.headers.append(self._preflight_vary)
            return response
        response = await handler(request)
        response.headers.extend(self._lines(request))
        return response

    def _lines(self, request: Request) -> RawHeaders:
        if self._any_origin:
            return self._listed[b"*"]  # also to who names no origin: caches keep one for all
        origins = [value for name, value in request.raw_headers if name == b"origin"]
        if len(origins) != 1:
            return self._vary
        lines = self._listed.get(origins[0])
        if lines is not None:
            return lines
        if self._has_pattern and self._cors.allows_origin(origins[0].decode("latin-1")):
            return [(_ALLOW_ORIGIN, origins[0]), *self._shared]
        return self._vary


class _Policy:
    """Decides on preflights (Fetch, section 3.3.2)."""

    def __init__(self, cors: CORS) -> None:
        self._cors = cors
        methods = ALL_METHODS if "*" in cors.allow_methods else tuple(cors.allow_methods)
        # As in the corridor: what can be got can be asked for its head.
        self._methods = frozenset({*methods, "HEAD"} if "GET" in methods else methods)
        patterns = [name.lower() for name in cors.allow_headers]
        self._names = frozenset(name for name in patterns if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in patterns if name.endswith("*"))
        self._fixed: RawHeaders = [
            (b"access-control-allow-methods", ", ".join(methods).encode("ascii")),
            (b"access-control-max-age", b"%d" % cors.max_age),
        ]
        if cors.allow_credentials:
            self._fixed.append((b"access-control-allow-credentials", b"true"))

    async def preflight(self, request: Request) -> Response:
        """204 with what is allowed; raises InvalidRequest for what is not."""
        headers = request.headers
        origin = ", ".join(headers.get_all("origin"))
        if not self._cors.allows_origin(origin):
            raise InvalidRequest("Pages of this origin may not call here.", param="Origin")
        method = headers.get("access-control-request-method")
        if method not in self._methods:
            raise InvalidRequest(
                "Pages of other origins may not use this method.",
                param="Access-Control-Request-Method",
            )
        names = self._requested(headers)
        allowed = b"*" if self._cors.any_origin else origin.encode("ascii")
        lines = [(_ALLOW_ORIGIN, allowed), *self._fixed]
        if names:
            lines.append((b"access-control-allow-headers", ", ".join(names).encode("ascii")))
        if headers.get("access-control-request-private-network") == "true":
            if not self._cors.allow_private_network:
                raise InvalidRequest(
                    "Pages of the public network may not call here.",
                    param="Access-Control-Request-Private-Network",
                )
            lines.append((b"access-control-allow-private-network", b"true"))
        return Response(204, lines)

    def _requested(self, headers: Headers) -> list[str]:
        """The names that the page wants to send, if it may send all of them."""
        asked = ",".join(headers.get_all("access-control-request-headers")).lower()
        names = [name for part in asked.split(",") if (name := part.strip())]
        for name in names:
            if name not in self._names and not (
                name.startswith(self._prefixes) and _TOKEN.fullmatch(name)
            ):
                raise InvalidRequest(
                    "Pages of other origins may not send one of these headers.",
                    param="Access-Control-Request-Headers",
                )
        return names


def _is_preflight(headers: Headers) -> bool:
    return "origin" in headers and "access-control-request-method" in headers


def _readable(cors: CORS) -> RawHeaders:
    """What an answer that a page may read says beside its origin."""
    lines: RawHeaders = []
    if cors.allow_credentials:
        lines.append((b"access-control-allow-credentials", b"true"))
    if cors.expose_headers:
        exposed = ", ".join(cors.expose_headers).encode("ascii")
        lines.append((b"access-control-expose-headers", exposed))
    if not cors.any_origin:
        lines.append((b"vary", b"Origin"))
    return lines
