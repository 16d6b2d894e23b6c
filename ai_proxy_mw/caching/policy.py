"""Which calls may be answered from the cache, and under which key."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from ai_proxy_mw.caching.cacheable import LEFT_OUT, is_certain, left_out_of, may_be_kept
from ai_proxy_mw.caching.key import Scope, cache_key
from ai_proxy_mw.caching.question import Unkeyable, read
from ai_proxy_mw.caching.tags import tag_of
from ai_proxy_mw.schema.remembered import remembered

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw.caching.options import Cache

_LONG_WORK = 512 * 1024
"""Bytes from which on a body is read in a thread: a millisecond of the loop of all calls."""

# They change what the upstream does, and are sent to it.
_ALWAYS = ("anthropic-beta", "anthropic-version", "openai-beta")

_USUAL = frozenset({"*/*", "application/*", "application/json", "text/plain"})
"""What clients accept without meaning anything by it."""

_USUAL_FOR_STREAMS = _USUAL | {"text/event-stream"}
"""Who asks for no stream would be given one by some upstreams if he accepted it."""

_COMMON = (b"*/*", b"application/json")
"""What nearly all of them say."""


class Plan(NamedTuple):
    """Where a call's answer is kept, and what else it can be purged by."""

    key: str
    subject: str
    endpoint: str
    model: str

    @property
    def is_get(self) -> bool:
        return self.endpoint.startswith("GET ")

    @property
    def tags(self) -> tuple[str, ...]:
        return (
            tag_of("subject", self.subject),
            tag_of("endpoint", self.endpoint),
            tag_of("model", self.model),
        )


class Policy:
    """app: its name; apps of other names have entries of their own.
    upstream: where answers come from.
    forwarded: names of the caller's headers that are sent there.
    """

    def __init__(self, cache: Cache, *, app: str, upstream: str, forwarded: Iterable[str]) -> None:
        self._cache = cache
        self._app = app
        self._upstream = upstream
        members = [name for name in cache.vary if name in LEFT_OUT]
        self._left_out = {each: left_out_of(each) - set(members) for each in cache.endpoints}
        named = {name.lower() for name in (*cache.vary, *forwarded)}
        names = {*named - set(members), *_ALWAYS} - {"accept"}
        self._question = remembered(self._question_of)
        self._vary = frozenset(name.encode("ascii") for name in names)
        # By it, an upstream answers again what it was asked before, perhaps something else.
        self._vary_among_many = self._vary | {b"idempotency-key"}

    async def plan(self, request: Request) -> Plan | None:
        """None for a call that the cache has nothing to do with."""
        cache = self._cache
        if cache.when is not None and not cache.when(request):
            return None
        scope = self._scope(request)
        if scope is None:
            return None
        call = request.call
        # Read here, and not by the flight: others would wait for who does not send it, and one
        # that goes on when its caller has left would find nobody to read it from.
        if call is None and await request.body.read():
            return None  # it could ask for anything
        body = b"{}" if call is None else call.body()
        if len(body) > _LONG_WORK:
            question = await asyncio.to_thread(self._question_of, request.endpoint, body)
        else:
            question = self._question(request.endpoint, body)
        if question is None:
            return None
        model = "" if call is None else call.model or ""
        key = cache_key(
            scope,
            app=self._app,
            upstream=self._upstream,
            endpoint=request.endpoint,
            path=request.path or "",
            query=request.query,
            question=question,
            vary=[*self._varying(request, scope), *_models_of(request)],
        )
        return Plan(key, request.subject, request.endpoint, model)

    def _question_of(self, endpoint: str, body: bytes) -> bytes | None:
        """The digest of what is asked; None if its answer is not to be kept."""
        try:
            members, canonical = read(body, self._left_out[endpoint])
        except Unkeyable:
            return None
        if not may_be_kept(endpoint, members):
            return None
        if self._cache.temperature_zero_only and not is_certain(endpoint, members):
            return None
        return hashlib.sha256(canonical).digest()

    def _scope(self, request: Request) -> Scope | None:
        scope = self._cache.scope
        if scope == "shared":
            return Scope("shared", "")
        if callable(scope):
            name = scope(request)
            return None if name is None else Scope("own", name)
        identity = request.identity
        if identity is not None and identity.scope is not None:
            return Scope("group", identity.scope)
        return Scope("subject", request.subject)

    def _varying(self, request: Request, scope: Scope) -> list[tuple[str, str]]:
        """The headers that matter, as far as they are there."""
        names = self._vary if scope.kind == "subject" else self._vary_among_many
        said = request.said
        if (
            names.isdisjoint(said)
            and said.get(b"accept", b"*/*") in _COMMON
            and request.says_nothing_twice
        ):
            return []  # as mostly
        streams = request.call is not None and request.call.stream
        usual = _USUAL_FOR_STREAMS if streams else _USUAL
        found = []
        for name, value in request.raw_headers:
            if name in names or (name == b"accept" and not _are_in(usual, value)):
                found.append((name.decode("latin-1"), value.decode("latin-1")))
        found.sort(key=_name)  # lines of one name stay in their order
        return found


def _models_of(request: Request) -> list[tuple[str, str]]:
    """Those that the caller is held to, where the answer is the list of them."""
    models = None if request.identity is None else request.identity.models
    if models is None or request.endpoint != "GET /models":
        return []
    # No header has such a name.
    return [(":models", json.dumps(sorted(models)))]


def _are_in(usual: frozenset[str], accept: bytes) -> bool:
    if accept in _COMMON:
        return True
    items = accept.decode("latin-1").lower().split(",")
    return {item.partition(";")[0].strip() for item in items} <= usual


def _name(line: tuple[str, str]) -> str:
    return line[0]
