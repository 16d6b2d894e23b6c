"""Which header lines pass, in each direction. Allow-lists both: what is not named stays behind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from ai_proxy_mw import __version__
from ai_proxy_mw._encoding import acceptable
from ai_proxy_mw._errors import ConfigurationError

if TYPE_CHECKING:
    from ai_proxy_mw._config import Upstream
    from ai_proxy_mw._types import RawHeaders

US = f"ai_proxy_mw/{__version__}".encode()

# What becomes of a line. No enum, whose members take longer to look up than the line does.
_PASSED, _TYPE, _CODING, _FRESHNESS, _ID = range(5)

_OUT = frozenset(
    {
        b"accept",
        b"anthropic-beta",
        b"anthropic-version",
        b"content-encoding",
        b"content-type",
        b"idempotency-key",
        b"openai-beta",
        b"x-client-request-id",
    }
)
_OUT_PREFIX = b"x-stainless-"

_IN = frozenset(
    {
        b"content-disposition",
        b"content-language",
        b"content-length",
        b"etag",
        b"last-modified",
        b"ratelimit",
        b"ratelimit-policy",
        b"request-id",
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
    }
)
_RULES_IN = {
    **dict.fromkeys(_IN, _PASSED),
    b"content-type": _TYPE,
    b"content-encoding": _CODING,
    b"cache-control": _FRESHNESS,
    b"x-request-id": _ID,
}
_IN_PREFIXES = (b"anthropic-", b"openai-", b"x-ratelimit-")

# The caller's credentials and whereabouts are the app's business, framing is the transport's
# (RFC 9110, section 7.6.1), and the rest is set by us.
_NEVER_OUT = frozenset(
    b"accept-encoding authorization connection content-length cookie expect forwarded host "
    b"keep-alive proxy-authenticate proxy-authorization proxy-connection set-cookie te trailer "
    b"transfer-encoding upgrade user-agent via x-api-key x-forwarded-for x-forwarded-host "
    b"x-forwarded-port x-forwarded-proto x-proxy-origin x-real-ip".split()
)

_TOKEN = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2, without _
_USER_AGENT = re.compile(rb"[\x20-\x7e]{1,256}")

_KEEPS_OUT = re.compile(rb"\b(?:no-store|no-cache|private)\b", re.IGNORECASE)
_PRIVATE = (b"cache-control", b"private")

# An answer can hold a file that some user uploaded. Opened as a page, it must not act as the app.
HARMLESS: RawHeaders = [
    (b"content-security-policy", b"sandbox"),
    (b"x-content-type-options", b"nosniff"),
]


class Outward:
    """Makes the header lines for an upstream, with one of its keys."""

    def __init__(
        self, upstream: Upstream, forward: Iterable[str], *, key: str | None = None
    ) -> None:
        if isinstance(forward, str):
            raise ConfigurationError(f"forward_headers={forward!r}: write a list of names")
        self.forwarded = tuple(forward)
        """Names of the caller's headers that are passed on besides those that always are."""
        allowed = _OUT | {_forwardable(name) for name in self.forwarded}
        self._own: RawHeaders = [(b"host", upstream.authority.encode("ascii"))]
        if key is not None and not callable(upstream.auth):
            self._own.append(_credential(upstream.auth, key))
        self._own += [(b"via", b"1.1 ai_proxy_mw"), (b"x-proxy-origin", US)]
        named = [(k.lower().encode(), v.encode("latin-1")) for k, v in upstream.headers.items()]
        replaced = {name for name, _ in named}
        self._own = [line for line in self._own if line[0] not in replaced] + named
        # What the owner sets for the upstream is not the caller's to say.
        allowed -= {name for name, _ in self._own}
        self._says_agent = b"user-agent" not in replaced
        self._says_encoding = b"accept-encoding" not in replaced
        self._passes = _Passes({**dict.fromkeys(_NEVER_OUT, False), **dict.fromkeys(allowed, True)})

    def __call__(self, headers: RawHeaders) -> RawHeaders:
        passes, said = self._passes, dict(headers)
        lines = self._own + [line for line in headers if passes[line[0]]]
        if self._says_agent:
            # A longer one is not sent on, nor kept in the cache.
            lines.append(_user_agent(said.get(b"user-agent", b"")[:257]))
        if self._says_encoding:
            lines.append((b"accept-encoding", acceptable(said.get(b"accept-encoding", b""))))
        return lines


class _Passes(dict[bytes, bool]):
    """Whether a line passes, by its name. Nearly all that callers send are known."""

    def __missing__(self, name: bytes) -> bool:
        return name.startswith(_OUT_PREFIX) and b"_" not in name


def inward(headers: RawHeaders) -> tuple[RawHeaders, bytes, bytes]:
    """The header lines of an answer that the caller may see, its content type and its coding."""
    lines: RawHeaders = []
    content_type = coding = b""
    for line in headers:
        name, value = line
        rule = _RULES_IN.get(name)
        if rule is None:
            if not name.startswith(_IN_PREFIXES):
                continue
        elif rule == _TYPE:
            content_type = value
        elif rule == _CODING:
            coding = value.strip().lower()
        elif rule == _FRESHNESS:
            # What one user was answered is not for a cache that serves others.
            line = line if _KEEPS_OUT.search(value) else _PRIVATE  # noqa: PLW2901
        elif rule == _ID:
            # X-Request-ID names the call through us; theirs is what their support asks for.
            line = (b"x-upstream-request-id", value)  # noqa: PLW2901
        lines.append(line)
    return lines + HARMLESS, content_type, coding


@lru_cache(maxsize=256)
def _user_agent(caller: bytes) -> tuple[bytes, bytes]:
    """Ours, and the caller's behind it if it is one that can be sent on."""
    return b"user-agent", b"%b %b" % (US, caller) if _USER_AGENT.fullmatch(caller) else US


def _forwardable(name: str) -> bytes:
    line = name.lower().encode("ascii", "replace")
    if not _TOKEN.fullmatch(name) or line in _NEVER_OUT:
        raise ConfigurationError(f"forward_headers: {name!r} cannot be passed to an upstream")
    return line


def _credential(auth: str, key: str) -> tuple[bytes, bytes]:
    if auth == "bearer":
        return b"authorization", b"Bearer " + key.encode("ascii")
    return auth.encode("ascii"), key.encode("ascii")
