"""The value objects that configure a proxy. Frozen, keyword-only, checked when made."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from ai_proxy_mw._base_url import authority, place_of
from ai_proxy_mw._concurrency import Concurrency, concurrency_of
from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._numbers import is_number

if TYPE_CHECKING:
    from ai_proxy_mw.upstream.base import Origin, Transport

Auth = Literal["bearer", "x-api-key", "api-key"]

Credentials = Callable[["str | None"], "Mapping[str, str] | Awaitable[Mapping[str, str]]"]
"""Gives the header lines that say who is asking, for a key."""

# Those whose own reference has it (read in 2026-11): OpenAI's for chat and completions, as the
# types of its SDKs do ("stream_options"); https://console.groq.com/docs/api-reference, whose server
# refused it in 2024. OpenRouter ("Usage Accounting": it "has no effect") and DeepSeek ("Chat
# Completions API": "either way, the last chunk ... carries the token usage") tell of it unasked.
# For Together, xAI and Gemini nothing was found that says so; Azure has it since some api-version.
_STREAM_USAGE = frozenset({"api.groq.com", "api.openai.com"})

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_QUERY = re.compile(r"[A-Za-z0-9._~-]+")
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


def _is_key(key: object) -> bool:
    return isinstance(key, str) and re.fullmatch(r"[!-~]+", key) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Upstream:
    """One provider.

    base_url: what stands before `/chat/completions`, as for the provider's own SDK. A segment
        `{model}` stands for the model that is asked.
    name: by which answers and logs name it.
    api_key: the provider's key; sent as `auth` says, never shown.
    keys: several keys in its place, which take turns.
    auth: how a key is sent: as "bearer", "x-api-key" or "api-key"; or a function of the key, sync
        or async, that gives the header lines to send, such as `lambda key: {"x-key": key}`.
    models: which it has, by name or pattern; or as `{name: name of its own}`; all if None.
    endpoints: which it serves; all if None.
    weight: its share of the calls among those of one priority.
    priority: those of a higher number are asked when those of a lower one have failed.
    query: what is sent behind each path, such as `{"api-version": "2024-10-21"}`.
    headers: further header lines for this provider, such as `OpenAI-Organization`.
    max_concurrent: the most calls it is sent at a time, by this process.
    idempotency_key: whether it takes an `Idempotency-Key`; calls without one are then given one,
        which makes it safe to send them again.
    stream_usage: whether it takes `stream_options: {"include_usage": true}` for streams of chat and
        completions. Where something is counted by use, that is then asked for, and what comes of it
        is kept from a caller who has not asked himself. None for those that are known to.
    client: an `httpx.AsyncClient` (or httpx2) to send with, e.g. for HTTP/2 or an outbound proxy.
    transport: any `Transport` instead, e.g. a `FakeUpstream` in tests.
    max_connections: the most connections open at once (for the transport of our own).
    keepalive: seconds that an unused connection is kept.

    Raises ConfigurationError.
    """

    base_url: str
    name: str = "default"
    api_key: str | None = field(default=None, repr=False)
    keys: Sequence[str] = field(default=(), repr=False)
    auth: Auth | Credentials = "bearer"
    models: Iterable[str] | Mapping[str, str] | None = None
    endpoints: Iterable[str] | None = None
    weight: float = 1
    priority: int = 0
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    max_concurrent: int | Concurrency | None = None
    idempotency_key: bool = False
    stream_usage: bool | None = None
    client: Any = field(default=None, repr=False)
    transport: Transport | None = field(default=None, repr=False)
    max_connections: int = 1000
    keepalive: float = 4.0
    origin: Origin = field(init=False, repr=False)
    path: str = field(init=False, repr=False)
    names: Mapping[str, str | None] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        place = place_of(self.base_url)
        keys = _keys(self.api_key, self.keys)
        self._check()
        object.__setattr__(self, "origin", place.origin)
        object.__setattr__(self, "path", place.path)
        object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "names", _names(self.models))
        object.__setattr__(self, "endpoints", _endpoints(self.endpoints))
        object.__setattr__(self, "query", MappingProxyType(dict(self.query)))
        object.__setattr__(self, "headers", MappingProxyType(dict(self.headers)))
        limit = concurrency_of(self.max_concurrent, "max_concurrent")
        object.__setattr__(self, "max_concurrent", limit)

    def _check(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.name):
            raise ConfigurationError(f"name={self.name!r}: write a word like 'openai'")
        if self.auth not in get_args(Auth) and not callable(self.auth):
            raise ConfigurationError(f"auth={self.auth!r}: write one of {get_args(Auth)}")
        if not is_number(self.weight) or not self.weight > 0:
            raise ConfigurationError(f"weight={self.weight!r}: write a number above 0")
        if type(self.priority) is not int:
            raise ConfigurationError(f"priority={self.priority!r}: write a whole number")
        if not isinstance(self.idempotency_key, bool):
            raise ConfigurationError("idempotency_key: write True or False")
        if not isinstance(self.stream_usage, bool | None):
            raise ConfigurationError("stream_usage: write True, False, or None for what is known")
        self._check_lines()
        self._check_client()

    def _check_lines(self) -> None:
        check_header_lines("headers", self.headers)
        for name, value in self.query.items():
            if not all(isinstance(part, str) and _QUERY.fullmatch(part) for part in (name, value)):
                raise ConfigurationError(f"query: {name!r}: write letters, digits and -._~ only")

    def _check_client(self) -> None:
        if self.client is not None and self.transport is not None:
            raise ConfigurationError("give client= or transport=, not both")
        if self.max_connections < 1:
            raise ConfigurationError("max_connections: write a number above 0")
        if not self.keepalive >= 0:
            raise ConfigurationError("keepalive: write seconds, 0 for no reuse")

    @property
    def authority(self) -> str:
        """What the `Host` header says (RFC 9110, section 7.2)."""
        return authority(self.origin)

    @property
    def takes_stream_usage(self) -> bool:
        """Whether the use of a stream can be asked for."""
        if self.stream_usage is None:
            return self.origin.host in _STREAM_USAGE
        return self.stream_usage


def check_header_lines(what: str, lines: Mapping[str, str]) -> None:
    """Raises ConfigurationError for what cannot be sent as a header."""
    for name, value in lines.items():
        if not _TOKEN.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            raise ConfigurationError(f"{what}: {name!r} cannot be sent as a header")


def _keys(api_key: str | None, keys: Sequence[str]) -> tuple[str, ...]:
    if isinstance(keys, str):
        raise ConfigurationError("keys: write a list of keys, or api_key= for one")
    if api_key is not None and keys and tuple(keys) != (api_key,):  # as dataclasses.replace has it
        raise ConfigurationError("give api_key= or keys=, not both")
    found = tuple(keys) if api_key is None else (api_key,)
    if not all(map(_is_key, found)):
        raise ConfigurationError("api_key: a key is visible ASCII without spaces")
    if len(set(found)) < len(found):
        raise ConfigurationError("keys: one of them is there twice")
    return found


def _names(models: Iterable[str] | Mapping[str, str] | None) -> Mapping[str, str | None] | None:
    """Names and patterns, each with what the provider calls it; None for what it is asked as."""
    if models is None:
        return None
    if isinstance(models, str):
        raise ConfigurationError(f"models={models!r}: write a list of names and patterns")
    names = dict(models) if isinstance(models, Mapping) else dict.fromkeys(models)
    for name, own in names.items():
        if not _is_text(name) or not (own is None or _is_text(own)):
            raise ConfigurationError(f"models: {name!r}: write names, or {{'fast': 'a-model'}}")
    return MappingProxyType(names)


def _endpoints(endpoints: Iterable[str] | None) -> frozenset[str] | None:
    if endpoints is None:
        return None
    found = frozenset() if isinstance(endpoints, str) else frozenset(endpoints)
    if not found or not all(isinstance(each, str) and " /" in each for each in found):
        raise ConfigurationError("endpoints: write a set like {'POST /embeddings'}")
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def upstreams_of(
    one: str | Upstream | None,
    several: Iterable[Upstream],
    api_key: str | None,
    timeouts: Timeouts | None,
) -> tuple[Upstream, ...]:
    """The upstreams that were given in one of the ways. Raises ConfigurationError."""
    if isinstance(several, Upstream):
        raise ConfigurationError("upstreams: write a list of Upstream(name=..., base_url=...)")
    found = tuple(several)
    if (one is None) == (not found):
        raise ConfigurationError("give upstream= for one, or upstreams=[...] for several")
    if isinstance(one, str) or not isinstance(one, Upstream | None):
        return (Upstream(base_url=one, api_key=api_key, timeouts=timeouts or Timeouts()),)
    if one is not None:
        found = (one,)
    if api_key is not None or timeouts is not None:
        raise ConfigurationError("with upstream=Upstream(...), give it api_key= and timeouts=")
    if not all(isinstance(each, Upstream) for each in found):
        raise ConfigurationError("upstreams: write a list of Upstream(name=..., base_url=...)")
    if len({each.name for each in found}) < len(found):
        raise ConfigurationError("upstreams: give each a name= of its own")
    return found
