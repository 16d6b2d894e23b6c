"""The value objects that configure a proxy. Frozen, keyword-only, checked when made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, urlsplit

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.upstream.base import Origin

if TYPE_CHECKING:
    from ai_proxy_mw.upstream.base import Transport

Auth = Literal["bearer", "x-api-key"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_FIELD_VALUE = re.compile(r"[\x20-\x7e\x80-\xff\t]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """Patience with the upstream and the caller, in seconds.

    connect: until the connection stands, name look-up and TLS included.
    pool: until one of the upstream's connections is free, when all are in use.
    body: until each further piece of the caller's body has come.
    write: until the upstream has taken each piece of the request.
    first_byte: from the end of the request to the head of the answer.
    idle: between two pieces of the answer.
    total: from the first byte sent to the last one received.
    """

    connect: float = 5.0
    pool: float = 5.0
    body: float = 30.0
    write: float = 30.0
    first_byte: float = 60.0
    idle: float = 120.0
    total: float = 600.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            seconds = getattr(self, name)
            if (
                isinstance(seconds, bool)
                or not isinstance(seconds, int | float)
                or not 0 < seconds < float("inf")
            ):
                raise ConfigurationError(
                    f"Timeouts({name}={seconds!r}): write a number of seconds above 0"
                )


def _split(base_url: str) -> SplitResult:
    """The parts of a base URL that can be used as it is."""
    if not isinstance(base_url, str):
        raise ConfigurationError(f"base_url={base_url!r}: write a URL")
    if "@" in base_url:
        # Not shown: the password would end in a log.
        raise ConfigurationError("base_url must not hold a user or password; use api_key=")
    # The rest may hold a key that was put there by mistake.
    shown = f"base_url={re.split(r'[?#]', base_url)[0]!r}"
    try:
        parts = urlsplit(base_url)
        port_is_sane = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ConfigurationError(f"{shown}: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or not port_is_sane:
        raise ConfigurationError(f"{shown}: write a whole URL like 'https://api.openai.com/v1'")
    if parts.query or parts.fragment:
        raise ConfigurationError(f"{shown}: a base URL has no query and no fragment")
    if not re.fullmatch(r"[!-~]*", base_url):
        raise ConfigurationError(f"{shown}: use ASCII; encode other characters as %XX or punycode")
    return parts


def _is_key(key: object) -> bool:
    return isinstance(key, str) and re.fullmatch(r"[!-~]+", key) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """One provider.

    base_url: what stands before `/chat/completions`, as for the provider's own SDK.
    api_key: the provider's key; sent as `auth` says, never shown.
    headers: further header lines for this provider, such as `OpenAI-Organization`.
    client: an `httpx.AsyncClient` (or httpx2) to send with, e.g. for HTTP/2 or an outbound proxy.
    transport: any `Transport` instead, e.g. a `FakeUpstream` in tests.
    max_connections: the most connections open at once (for the transport of our own).
    keepalive: seconds that an unused connection is kept.

    Raises ConfigurationError.
    """

    base_url: str
    name: str = "default"
    api_key: str | None = field(default=None, repr=False)
    auth: Auth = "bearer"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    client: Any = field(default=None, repr=False)
    transport: Transport | None = field(default=None, repr=False)
    max_connections: int = 1000
    keepalive: float = 4.0
    origin: Origin = field(init=False, repr=False)
    path: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = _split(self.base_url)
        self._check()
        assert parts.hostname is not None
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        object.__setattr__(self, "origin", Origin(parts.scheme, parts.hostname, port))
        object.__setattr__(self, "path", parts.path.rstrip("/"))
        object.__setattr__(self, "headers", MappingProxyType(dict(self.headers)))

    def _check(self) -> None:
        if self.auth not in ("bearer", "x-api-key"):
            raise ConfigurationError(f"auth={self.auth!r}: write 'bearer' or 'x-api-key'")
        if self.api_key is not None and not _is_key(self.api_key):
            raise ConfigurationError("api_key: a key is visible ASCII without spaces")
        for name, value in self.headers.items():
            if not _TOKEN.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
                raise ConfigurationError(f"headers: {name!r} cannot be sent as a header")
        if self.client is not None and self.transport is not None:
            raise ConfigurationError("give client= or transport=, not both")
        if self.max_connections < 1:
            raise ConfigurationError("max_connections: write a number above 0")
        if not self.keepalive >= 0:
            raise ConfigurationError("keepalive: write seconds, 0 for no reuse")

    @property
    def authority(self) -> str:
        """What the `Host` header says (RFC 9110, section 7.2)."""
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        default = _DEFAULT_PORTS[self.origin.scheme] == self.origin.port
        return host if default else f"{host}:{self.origin.port}"
