"""Answers from what is kept, and has many who ask the same wait for one call upstream."""

from __future__ import annotations

from collections.abc import Awaitable
from copy import copy
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import NotCached, UpstreamError
from ai_proxy_mw._http import Response
from ai_proxy_mw.caching import marks
from ai_proxy_mw.caching.conditional import conditional
from ai_proxy_mw.caching.flight import HandedOver
from ai_proxy_mw.caching.recording import may_be_kept
from ai_proxy_mw.caching.replay import coding_of, kept, shared
from ai_proxy_mw.caching.wishes import NONE, wishes_of
from ai_proxy_mw.limiting.tally import Release

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._limits import Limit
    from ai_proxy_mw._types import Handler, RawHeaders
    from ai_proxy_mw.caching.answers import Answers
    from ai_proxy_mw.caching.entry import Entry
    from ai_proxy_mw.caching.flight import Flight, Head, Listener
    from ai_proxy_mw.caching.policy import Plan
    from ai_proxy_mw.caching.wishes import Wishes
    from ai_proxy_mw.limiting.tally import Tally

_FAILURES = frozenset({500, 502, 503, 504})  # RFC 5861, section 4


class CacheStage:
    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._endpoints = frozenset(answers.options.endpoints)

    # Not a coroutine of its own where it has nothing to do: one more frame for every call.
    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]:
        if request.endpoint not in self._endpoints:
            return handler(request)
        return self._asked(request, handler)

    async def _asked(self, request: Request, handler: Handler) -> Response:
        wishes = wishes_of(request.raw_headers) if b"cache-control" in request.said else NONE
        plan = None if wishes.no_store else await self._answers.policy.plan(request)
        if plan is not None:
            return await _Case(self._answers, request, handler, plan, wishes).answer()
        if wishes.only_if_cached:
            raise NotCached
        self._answers.counts.bypassed += 1
        if request.note is not None:
            request.note.cache = "bypass"
        response = await handler(request)
        response.headers = response.headers + marks.BYPASS
        return response


class _Case:
    """One call that the cache may answer."""

    def __init__(
        self, answers: Answers, request: Request, handler: Handler, plan: Plan, wishes: Wishes
    ) -> None:
        self._answers = answers
        self._request = request
        self._handler = handler
        self._plan = plan
        self._wishes = wishes
        # The stage that has made it takes it off the request when this call is answered.
        self._tally = request.tally
        self._note = request.note
        self._asks = False  # whether it goes upstream itself, where it is counted

    async def answer(self) -> Response:
        entry = None
        if not self._wishes.no_cache and not self._is_first():
            entry = await self._answers.find(self._plan.key)
        if entry is not None:
            response = await self._from_kept(entry)
            if response is not None:
                return response
        if self._wishes.only_if_cached:
            raise NotCached
        if self._request.method == "HEAD":
            self._answers.counts.misses += 1
            if self._note is not None:
                self._note.cache = "miss"
            response = await self._handler(self._request)
            response.headers = response.headers + marks.miss("method", stored=False)
            return response
        while True:
            try:
                return await self._from_upstream(entry)
            except HandedOver:
                pass  # then it is for this call to ask, or for another that was quicker

    def _is_first(self) -> bool:
        """Whether the first call of its kind is under way, so that nothing can be kept yet."""
        flight = self._answers.flights.under_way(self._plan.key)
        return flight is not None and flight.first

    # -- what is kept ------------------------------------------------------------------------

    async def _from_kept(self, entry: Entry) -> Response | None:
        wishes = self._wishes
        age = self._age(entry)
        left = entry.ttl - age
        too_old = wishes.max_age is not None and age > wishes.max_age
        fresh = left > 0 and left >= (wishes.min_fresh or 0)
        if not (fresh and not too_old) and not self._may_be_stale(entry, too_old=too_old):
            return None
        response = await self._hit(entry, marks.hit(age=age, ttl=left))
        if left <= 0:
            self._renew(entry)
        return response

    def _may_be_stale(self, entry: Entry, *, too_old: bool) -> bool:
        """Whether an answer past its time will do for this caller."""
        wishes = self._wishes
        if too_old or wishes.min_fresh is not None:
            return False
        late = self._age(entry) - entry.ttl
        if wishes.max_stale is not None:
            return late <= wishes.max_stale
        # Who says how old it may be wants nothing stale, either (RFC 9111, section 5.2.1.1).
        return wishes.max_age is None and late < self._answers.options.stale_while_revalidate

    async def _hit(self, entry: Entry, said: RawHeaders) -> Response:
        if self._tally is not None:
            await self._count(self._tally)
        saving = self._answers.savings.of(entry)
        stale = self._age(entry) >= entry.ttl
        self._answers.counts.hit(saving, stale=stale)
        if self._note is not None:
            self._note.hit(saving, stale=stale)
        request = self._request
        paced = self._answers.options.replay == "paced"
        response = kept(entry, said, paced=paced, bodyless=request.method == "HEAD")
        if self._plan.is_get:
            return conditional(request.raw_headers, response, entry.body)
        return response

    def _renew(self, entry: Entry) -> None:
        """Have it asked anew, without anybody waiting for it."""
        if self._age(entry) - entry.ttl >= self._answers.options.stale_while_revalidate:
            return
        if self._wishes.only_if_cached or self._request.method == "HEAD":
            return  # to HEAD there comes no answer that could be kept
        if self._answers.flights.under_way(self._plan.key) is None:
            self._begin(entry, alone=True)

    def _instead(self, entry: Entry | None) -> Entry | None:
        """What may be given although the upstream has failed."""
        if entry is None or not self._answers.options.stale_if_error:
            return None
        late = self._age(entry) - entry.ttl
        return entry if late < self._answers.options.stale_if_error else None

    async def _hit_for_error(self, entry: Entry) -> Response:
        age = self._age(entry)
        return await self._hit(entry, marks.stale_for_error(age=age, ttl=entry.ttl - age))

    def _age(self, entry: Entry) -> float:
        return self._answers.clock() - entry.created

    # -- upstream ----------------------------------------------------------------------------

    async def _from_upstream(self, entry: Entry | None) -> Response:
        instead = self._instead(entry)
        flight = None if self._wishes.no_cache else self._answers.flights.under_way(self._plan.key)
        joins = flight is not None
        note = self._note
        if flight is None:
            flight = self._begin(entry, alone=False)
            flight.first = entry is None and not self._wishes.no_cache
            if note is not None:
                note.cache = "miss"
        elif note is not None:
            note.cache = "collapsed"
        listener = flight.listen(began=not joins)
        try:
            head = await self._head(listener, joins=joins)
            if instead is None or head.status not in _FAILURES:
                return await self._heard(flight, listener, head, joins=joins, entry=entry)
        except UpstreamError:
            await listener.aclose()
            if instead is None:
                raise
        except BaseException:
            await listener.aclose()
            raise
        await listener.aclose()
        return await self._hit_for_error(instead)

    async def _head(self, listener: Listener, *, joins: bool) -> Head:
        note = self._note
        if note is None or not joins:
            return await listener.head()
        note.waits()
        try:
            return await listener.head()
        finally:
            note.back()

    async def _heard(
        self, flight: Flight, listener: Listener, head: Head, *, joins: bool, entry: Entry | None
    ) -> Response:
        counts = self._answers.counts
        if joins or flight.second_hand:
            if self._tally is not None:
                await self._count(self._tally)
            counts.collapsed += 1
            if self._note is not None:
                # Not what it has noted itself: it would hold itself, and wait for the collector.
                self._note.share(None if flight.second_hand else flight.note)
            response = shared(self._request, head, listener, marks.collapsed())
        else:
            counts.misses += 1
            said = marks.miss(self._why(entry), stored=may_be_kept(head))
            response = Response(head.status, [*head.headers, *said], listener)
            response.event_stream = head.event_stream
        response.aside = flight.aside
        if not self._plan.is_get or head.status != 200 or coding_of(head.headers):
            return response
        body = await listener.whole()
        if body is None:
            return response
        answer = conditional(self._request.raw_headers, response, body)
        if answer is not response:
            await listener.aclose()
        return answer

    def _why(self, entry: Entry | None) -> str:
        if self._wishes.no_cache:
            return "request"
        if entry is None:
            return "miss"
        return "stale" if self._age(entry) >= entry.ttl else "request"

    def _begin(self, known: Entry | None, *, alone: bool) -> Flight:
        request, handler, tally = self._request, self._handler, self._tally
        if alone:
            request = _behind(request)
            tally = None if tally is None else tally.behind()
        note = request.note

        async def source() -> Response:
            self._asks = self._asks or not alone
            request.tally = tally
            try:
                response = await handler(request)
            except BaseException as error:
                if alone and note is not None:
                    note.fail(error)
                if alone and tally is not None:
                    tally.release()
                raise
            finally:
                request.tally = None
            if alone and note is not None:
                note.answered(response.status)
                response.observers.append(note)
            if tally is not None and alone and tally.holds_places:
                response.observers.append(Release(tally))
            return response

        flight = self._answers.flights.begin(
            self._plan.key,
            source,
            self._answers.keeping(self._plan, request),
            alone=alone,
            apart=self._wishes.no_cache,
            known=known,
        )
        if note is not None:
            flight.take_note(note, request if alone else None)
        return flight

    async def _count(self, tally: Tally) -> None:
        """What the cache answers is a call; it takes no tokens and no money."""
        if not self._answers.options.count_hits:
            tally.uncount()
        elif tally.needs_call and not self._asks:
            await tally.take_late(_calls_only)


def _behind(request: Request) -> Request:
    """For what nobody waits for: what becomes of it is no matter of the caller's own call."""
    other = copy(request)
    other.served = None
    if request.note is not None:
        other.note = request.note.behind()
    return other


def _calls_only(limit: Limit) -> int:
    return limit.of == "requests"
