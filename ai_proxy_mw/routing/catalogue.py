"""Asks all upstreams at once which models they have."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, NamedTuple

from ai_proxy_mw._errors import (
    UpstreamError,
    UpstreamProtocolError,
    UpstreamsDown,
    UpstreamTimeout,
)
from ai_proxy_mw._http import Ending, Response
from ai_proxy_mw.routing.letter import Letter, within
from ai_proxy_mw.routing.listing import Entry, entries_of, exact_names
from ai_proxy_mw.routing.sending import Send, Sent, ask
from ai_proxy_mw.routing.served import Served, Told

if TYPE_CHECKING:
    from ai_proxy_mw._http import Body, Request
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.routing.lane import Lane, Provider
    from ai_proxy_mw.routing.router import Router

MODELS = "GET /models"

PATIENCE = 10.0
"""Seconds that the list waits for an upstream."""

MOST_BYTES = 4 * 1024 * 1024
"""Of one upstream's answer, its coding taken off."""

_LONG_WORK = 256 * 1024
"""Bytes from which on an answer is read in a thread."""

# Of the caller's call, which is another one than those that are made here.
_LEFT_OUT = (b"accept", b"accept-encoding", b"content-encoding", b"content-type")

# They list at most 20 unless told otherwise, and want to know which API is meant (Anthropic's
# "List Models" and "Versions").
_ALL = b"limit=1000"
_VERSION = (b"anthropic-version", b"2023-06-01")


class Heard(NamedTuple):
    """What an upstream lists; or an error or an answer that is none of a list."""

    provider: Provider
    entries: Sequence[Entry]
    failure: UpstreamError | Response | None = None


class Catalogue:
    """patience: seconds that an upstream is waited for."""

    def __init__(self, router: Router, send: Send, *, patience: float = PATIENCE) -> None:
        self._router = router
        self._send = send
        self._patience = patience
        providers = dict.fromkeys(lane.provider for lane in router.lanes)
        self._providers = sorted(providers, key=lambda each: each.upstream.priority)
        self._listing = [
            each for each in self._providers if each.serves(MODELS) and not each.by_model
        ]
        names = [name for each in self._providers for name in exact_names(each.upstream.names)]
        self.named = tuple(dict.fromkeys(names))
        """Models that the owner has named, whether or not an upstream lists them."""

    @property
    def is_plain(self) -> bool:
        """Whether the list is just what one upstream says."""
        return not self.has_several and self._providers[0].upstream.names is None

    @property
    def has_several(self) -> bool:
        return len(self._providers) > 1

    def has(self, model: str) -> bool:
        """Whether any upstream is asked for such a model."""
        return bool(self._router.models_behind(model))

    async def ask(self, request: Request) -> list[Heard]:
        """What each says that can say it, the first by priority first."""
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(self._ask(request, each)) for each in self._listing]
        return [each.result() for each in asking]

    async def _ask(self, request: Request, provider: Provider) -> Heard:
        try:
            async with asyncio.timeout(self._patience):
                return await self._by(self._lane(provider), _question(request, provider))
        except TimeoutError:
            return Heard(provider, (), UpstreamTimeout("total"))
        except UpstreamError as error:
            return Heard(provider, (), error)

    def _lane(self, provider: Provider) -> Lane:
        own = [lane for lane in self._router.lanes if lane.provider is provider]
        free = self._router.ordered(lane for lane in own if lane.breaker.available)
        if not free:
            raise UpstreamsDown(min(lane.breaker.wait for lane in own))
        return free[0]

    async def _by(self, lane: Lane, question: Request) -> Heard:
        provider = lane.provider
        letter = Letter(
            body=b"",
            path=provider.path_to(None),
            timeouts=within(provider.upstream.timeouts, self._patience),
            headers=_version(question, provider),
            rewritten=False,
        )
        sent = await ask(
            question,
            lane,
            letter,
            self._send,
            told=Told(provider.name, None, None, instead=False),
            served=Served(),
            looks_in=False,
            cools=lambda: len(self._router.lanes) > 1,
        )
        body = await _body_of(sent)
        assert sent.response is not None
        if sent.response.status >= 400:
            return Heard(provider, (), Response(sent.response.status, sent.response.headers, body))
        if sent.response.status != 200:
            raise UpstreamProtocolError
        return Heard(provider, await _read(body))


async def _body_of(sent: Sent) -> bytes:
    """All of an answer; its lane is then done with it. Raises UpstreamError."""
    response, hold = sent.given(), sent.hold
    assert hold is not None
    how = Ending.CANCELLED
    try:
        body = await _whole(response.body)
        how = Ending.COMPLETE
    except UpstreamError:
        how = Ending.CUT
        raise
    finally:
        await response.body.aclose()
        hold.end(how)
    return body


async def _whole(body: Body) -> bytes:
    content = bytearray()
    async for piece in body:
        content += piece
        if len(content) > MOST_BYTES:
            raise UpstreamProtocolError
    return bytes(content)


async def _read(body: bytes) -> list[Entry]:
    try:
        if len(body) > _LONG_WORK:
            return await asyncio.to_thread(entries_of, body)
        return entries_of(body)
    except ValueError as error:
        raise UpstreamProtocolError from error


def _question(request: Request, provider: Provider) -> Request:
    """The caller's request made one for the list of an upstream."""
    question = copy(request)
    question.method, question.endpoint, question.path = "GET", MODELS, "/models"
    question.query = _ALL if provider.upstream.auth == "x-api-key" else b""
    question.call = question.tally = question.served = None
    lines = [line for line in request.raw_headers if line[0] not in _LEFT_OUT]
    question.raw_headers = [*lines, (b"accept", b"application/json")]
    question.said = dict(question.raw_headers)
    return question


def _version(question: Request, provider: Provider) -> RawHeaders:
    if provider.upstream.auth != "x-api-key":
        return []
    said = {name.lower() for name in provider.upstream.headers}
    asked = {name for name, _ in question.raw_headers}
    return [] if "anthropic-version" in said or _VERSION[0] in asked else [_VERSION]
