"""Which header lines pass, in each direction. Allow-lists both: what is not named stays behind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ai_proxy_mw import __version__
from ai_proxy_mw._encoding import acceptable
from ai_proxy_mw._errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from ai_proxy_mw._config import Upstream
    from ai_proxy_mw._types import RawHeaders

US = f"ai_proxy_mw/{__version__}".encode()

_OUT = frozenset(
    {
        b"accept",
        b"anthropic-beta",
        b"anthropic-version",
        b"content-type",
        b"idempotency-key",
        b"openai-beta",
        b"x-client-request-id",
    }
)
_OUT_PREFIX = b"x-stainless-"

_IN = frozenset(
    {
        b"age",
        b"cache-control",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-type",
        b"etag",
        b"expires",
        b"last-modified",
        b"ratelimit",
        b"ratelimit-policy",
        b"request-id",
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
    }
)
_IN_PREFIXES = (b"anthropic-", b"openai-", b"x-ratelimit-")

# The caller's credentials and whereabouts are the app's business, framing is the transport's
# (RFC 9110, section 7.6.1), and the rest is set by us.
_NEVER_OUT = frozenset(
    b"accept-encoding authorization connection content-length cookie expect forwarded host "
    b"keep-alive proxy-authenticate proxy-authorization proxy-connection set-cookie te trailer "
    b"transfer-encoding upgrade user-agent via x-api-key x-forwarded-for x-forwarded-host "
    b"x-forwarded-port x-forwarded-proto x-proxy-origin x-real-ip".split()
)

_UNSAFE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2, without _
_USER_AGENT = re.compile(rb"[\x20-\x7e]{1,256}")

# An answer can hold a file that some user uploaded. Opened as a page, it must not act as the app.
_HARMLESS: RawHeaders = [
    (b"content-security-policy", b"sandbox"),
    (b"x-content-type-options", b"nosniff"),
]


class Outward:
    """Makes the header lines for the upstream."""

    def __init__(self, upstream: Upstream, forward: Iterable[str]) -> None:
        self._allowed = _OUT | {_forwardable(name) for name in forward}
        self._own: RawHeaders = [(b"host", upstream.authority.encode("ascii"))]
        if upstream.api_key is not None:
            self._own.append(_credential(upstream.auth, upstream.api_key))
        self._own += [(b"via", b"1.1 ai_proxy_mw"), (b"x-proxy-origin", US)]
        named = [(k.lower().encode(), v.encode("latin-1")) for k, v in upstream.headers.items()]
        replaced = {name for name, _ in named}
        self._own = [line for line in self._own if line[0] not in replaced] + named
        # What the owner sets for the upstream is not the caller's to say.
        self._allowed -= replaced

    def __call__(self, headers: RawHeaders) -> RawHeaders:
        lines = self._own.copy()
        agent = US
        accept_encoding = b""
        for name, value in headers:
            if name in self._allowed or name.startswith(_OUT_PREFIX):
                if _UNSAFE.search(value):
                    raise InvalidRequest(f"The header {name.decode('latin-1')} cannot be sent on.")
                lines.append((name, value))
            elif name == b"user-agent":
                if _USER_AGENT.fullmatch(value):
                    agent = b"%b %b" % (US, value)
            elif name == b"accept-encoding":
                accept_encoding = value
        lines.append((b"user-agent", agent))
        lines.append((b"accept-encoding", acceptable(accept_encoding)))
        return lines


def inward(headers: RawHeaders) -> RawHeaders:
    """The header lines of an answer that the caller may see."""
    lines: RawHeaders = []
    for line in headers:
        name = line[0]
        if name in _IN or name.startswith(_IN_PREFIXES):
            lines.append(line)
        elif name == b"x-request-id":
            # X-Request-ID names the call through us; theirs is what their support asks for.
            lines.append((b"x-upstream-request-id", line[1]))
    return lines + _HARMLESS


def _forwardable(name: str) -> bytes:
    line = name.lower().encode("ascii", "replace")
    if not _TOKEN.fullmatch(name) or line in _NEVER_OUT:
        raise ConfigurationError(f"forward_headers: {name!r} cannot be passed to an upstream")
    return line


def _credential(auth: str, key: str) -> tuple[bytes, bytes]:
    if auth == "x-api-key":
        return b"x-api-key", key.encode("ascii")
    return b"authorization", b"Bearer " + key.encode("ascii")
