"""The way of one call: lane after lane, until one has answered or nobody is left to be asked."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol
from uuid import uuid4

from ai_proxy_mw._errors import UpstreamError, UpstreamsDown
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.routing.decide import Again, Attempt, GiveUp, Policy
from ai_proxy_mw.routing.hedge import first_good
from ai_proxy_mw.routing.lane import Lane
from ai_proxy_mw.routing.letter import Letter, with_model, within
from ai_proxy_mw.routing.patience import client_patience
from ai_proxy_mw.routing.sending import Send, Sent, ask
from ai_proxy_mw.routing.served import Served, Told
from ai_proxy_mw.schema.call import JSON_ENDPOINTS
from ai_proxy_mw.upstream.base import IDEMPOTENT

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.routing.retry_budget import RetryBudget
    from ai_proxy_mw.routing.router import Group, Route, Router
    from ai_proxy_mw.routing.shared import SharedBreakers

Deadline = float | Callable[["Request"], float | None]


class BodyOf(Protocol):
    async def __call__(self, request: Request) -> bytes | RequestBody: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """What all calls of a proxy share.

    hedge_after: seconds of silence after which a second lane is asked beside the first.
    deadline: seconds until an answer has to begin, where the owner says so.
    """

    router: Router
    policy: Policy
    send: Send
    body_of: BodyOf
    attempts: int
    budget: RetryBudget | None = None
    shared: SharedBreakers | None = None
    route: Route | None = None
    hedge_after: float | None = None
    deadline: Deadline | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Way(NamedTuple):
    """A lane, and the number of the group in which it stands."""

    group: int
    lane: Lane


class Trip:
    """One for each call."""

    def __init__(self, house: House, request: Request) -> None:
        self._house = house
        self._request = request
        self._served = request.served = Served()
        self._began = house.clock()
        self._wanted_by = self._owners_deadline()
        self._groups: Sequence[Group] = ()
        self._at = 0
        self._number = 0  # of sends in this group
        self._tried: set[Lane] = set()
        self._body: bytes | RequestBody = b""
        self._keys: dict[str | None, RawHeaders] = {}

    async def answer(self) -> Response:
        """The answer of whoever has given one. Raises UpstreamError."""
        self._groups = await self._choose()
        self._body = await self._house.body_of(self._request)
        try:
            response = await self._go(self._first())
        except UpstreamError as error:
            error.told = tuple(self._served.lines())
            raise
        response.headers = response.headers + self._served.lines()
        return response

    async def _go(self, way: Way) -> Response:
        while True:
            sent = await self._ask(way)
            if sent.outcome is None:
                return sent.given()
            step = self._house.policy.decide(self._attempt(way), sent.outcome)
            if isinstance(step, GiveUp):
                return sent.given(consumed=step.reason == "consumed")
            if isinstance(step, Again) and not self._open_now():
                return sent.given()
            # Before the pause: who waits keeps nobody from a place or a connection.
            await sent.discard(self._request)
            way = await self._pause(step) if isinstance(step, Again) else step.lane

    def _attempt(self, way: Way) -> Attempt[Way]:
        patience = client_patience(self._request.raw_headers)
        until = [] if patience is None else [self._began + patience]
        if self._wanted_by is not None:
            until.append(self._wanted_by)
        return Attempt(
            number=self._number,
            began=self._began,
            deadline=min(until, default=None),
            untried=self._untried(),
            later=self._later(),
            repeatable=not isinstance(self._body, RequestBody) or self._body.untouched,
            safe=self._is_safe(way.lane),
        )

    def _is_safe(self, lane: Lane) -> bool:
        request = self._request
        return (
            request.method in IDEMPOTENT
            or lane.provider.upstream.idempotency_key
            or _has_key(request)
        )

    def _owners_deadline(self) -> float | None:
        deadline = self._house.deadline
        seconds = deadline(self._request) if callable(deadline) else deadline
        return None if seconds is None else self._began + seconds

    # -- which way ---------------------------------------------------------------------------

    async def _choose(self) -> Sequence[Group]:
        house = self._house
        if house.route is not None:
            names = house.route(self._request)
            if inspect.isawaitable(names):
                names = await names
            if names is not None:
                chosen = (names,) if isinstance(names, str) else names
                return house.router.named(chosen, self._request)
        return house.router.groups(self._request)

    def _first(self) -> Way:
        ways = self._open(0) or self._later()
        if not ways:
            raise self._nobody()
        return ways[0]

    def _nobody(self) -> UpstreamsDown:
        waits = [lane.breaker.wait for group in self._groups for lane in group.lanes]
        return UpstreamsDown(min(waits))

    def _open(self, number: int) -> list[Way]:
        """The ways of a group that may be taken now, the best one first."""
        lanes = [lane for lane in self._groups[number].lanes if lane.breaker.available]
        return [Way(number, lane) for lane in self._house.router.ordered(lanes)]

    def _untried(self) -> list[Way]:
        return [way for way in self._open(self._at) if way.lane not in self._tried]

    def _later(self) -> list[Way]:
        for number in range(self._at + 1, len(self._groups)):
            ways = self._open(number)
            if ways:
                return ways
        return []

    async def _pause(self, step: Again) -> Way:
        await self._house.sleep(step.after)
        ways = self._open_now()
        if not ways:
            raise self._nobody()  # others have found out meanwhile
        return ways[0]

    def _open_now(self) -> list[Way]:
        return self._open(self._at) or self._later()

    # -- asking ------------------------------------------------------------------------------

    async def _ask(self, way: Way) -> Sent:
        if way.group != self._at:
            self._at, self._number = way.group, 0
            self._tried.clear()
        after = self._house.hedge_after
        # Only what leaves nothing behind: two batches, or two conversations, are one too many.
        if after is not None and self._request.endpoint in JSON_ENDPOINTS:
            others = [each for each in self._untried() if each != way] or self._later()
            if others:
                return await first_good(
                    partial(self._ask_one, way),
                    partial(self._ask_one, others[0]),
                    after=after,
                    lost=self._lost,
                )
        return await self._ask_one(way)

    async def _lost(self, sent: Sent) -> None:
        await sent.discard(self._request)

    async def _ask_one(self, way: Way) -> Sent:
        lane, group = way.lane, self._groups[way.group]
        self._tried.add(lane)
        self._number += 1
        self._served.attempts += 1
        own = None if group.model is None else lane.provider.own_name(group.model) or group.model
        return await ask(
            self._request,
            lane,
            self._letter(lane, own),
            self._house.send,
            told=Told(lane.provider.name, group.model, own, instead=group.instead),
            served=self._served,
            looks_in=self._can_go_on(),
            cools=partial(self._has_others, lane),
        )

    def _has_others(self, lane: Lane) -> bool:
        """Whether such a call could go elsewhere while the lane rests.

        The last one does not rest: a call that is too large for any limit is told 429 by all of
        them, and must not close all of them for everybody.
        """
        others = (other for group in self._groups for other in group.lanes if other is not lane)
        return any(other.breaker.available for other in others)

    def _can_go_on(self) -> bool:
        """Whether anything could follow if this send failed."""
        return isinstance(self._body, bytes) and (
            self._number < self._house.attempts or bool(self._untried()) or bool(self._later())
        )

    def _letter(self, lane: Lane, model: str | None) -> Letter:
        upstream = lane.provider.upstream
        body = with_model(self._request.call, self._body, model)
        left = None if self._wanted_by is None else self._wanted_by - self._house.clock()
        return Letter(
            body=body,
            path=lane.provider.path_to(model),
            timeouts=within(upstream.timeouts, left),
            headers=self._idempotency_key(model) if upstream.idempotency_key else [],
            rewritten=body is not self._body,
        )

    def _idempotency_key(self, model: str | None) -> RawHeaders:
        """One for all sends of the same body, where the caller has given none.

        With another body, providers take a key for a mistake, or give the first one's answer.
        """
        if _has_key(self._request):
            return []
        return self._keys.setdefault(model, [(b"idempotency-key", uuid4().hex.encode())])


def _has_key(request: Request) -> bool:
    return any(name == b"idempotency-key" for name, _ in request.raw_headers)
