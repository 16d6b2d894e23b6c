"""One send by one lane, and what it says of the lane."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ai_proxy_mw._errors import ProxyError, UpstreamBusy, UpstreamError, UpstreamTimeout
from ai_proxy_mw._http import Ending, Headers
from ai_proxy_mw.accounting.readers import reader_for
from ai_proxy_mw.routing.outcome import Outcome, of_answer, of_error
from ai_proxy_mw.routing.peek import peek
from ai_proxy_mw.routing.wrong import looks_wrong

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw.accounting.usage import Usage
    from ai_proxy_mw.routing.gate import Places
    from ai_proxy_mw.routing.lane import Lane
    from ai_proxy_mw.routing.letter import Letter
    from ai_proxy_mw.routing.served import Served, Told

PEEK = 15.0
"""Seconds that the beginning of a stream is held back until it says something."""

COOL = 5.0
"""Seconds that a key rests which was told that it asks too much, and not for how long."""

_LATE_USAGE = 0.25
"""Seconds that an answer nobody needs has to tell what it has used."""

# Of our key, or of the upstream: 529 is Anthropic's "overloaded". 402 and 403 say as often that
# this call costs too much, or asks for what it may not, which any caller could do at will.
_TROUBLE = frozenset({401, 500, 502, 503, 504, 529})
_TOO_MANY = 429


class Send(Protocol):
    """Sends a call by one lane."""

    async def __call__(self, request: Request, lane: Lane, letter: Letter) -> Response: ...


class Hold:
    """What a send holds of its lane until its answer has ended, which it watches."""

    __slots__ = ("_is_judged", "_lane", "_places", "_token")

    def __init__(self, lane: Lane, places: Places | None, token: int) -> None:
        self._lane = lane
        self._places = places
        self._token = token
        self._is_judged = False
        lane.in_flight += 1

    def judge(self, *, failed: bool) -> None:
        self._is_judged = True
        breaker = self._lane.breaker
        if failed:
            breaker.failed(self._token)
        else:
            breaker.succeeded(self._token)

    def chunk(self, data: bytes) -> None:
        pass

    def end(self, how: Ending) -> None:
        self._lane.in_flight -= 1
        if self._places is not None:
            self._places.leave()
        if not self._is_judged:
            self._lane.breaker.abandoned(self._token)
        elif how is Ending.CUT:
            # By its own token: an answer that began before the circuit opened is no probe.
            self._lane.breaker.failed(self._token)


class Sent(NamedTuple):
    """What a send has brought: an answer or an error, and `outcome` unless all is well."""

    told: Told
    served: Served
    outcome: Outcome | None
    error: UpstreamError | None = None
    response: Response | None = None
    hold: Hold | None = None

    @property
    def good(self) -> bool:
        return self.outcome is None

    def given(self, *, consumed: bool = False) -> Response:
        """The answer, for the caller. Raises the error that is there in its place."""
        self.served.by = self.told
        if self.good:
            self.served.unanswered -= 1
        if self.error is not None:
            if consumed:
                self.error.message += " The upload was passed on and not kept: send it again."
            raise self.error
        assert self.response is not None
        assert self.hold is not None
        self.response.observers.append(self.hold)
        return self.response

    async def discard(self, request: Request) -> None:
        """Let go of an answer that nobody is given; what it says it has used is still counted."""
        if self.response is None or self.hold is None:
            return
        try:
            if self.good:
                await self._count(request, self.response)
        finally:
            try:
                await self.response.body.aclose()
            finally:  # who leaves meanwhile cancels that, too
                self.hold.end(Ending.CANCELLED)

    async def _count(self, request: Request, response: Response) -> None:
        usage = None if response.event_stream else await _late_usage(request, response)
        if usage is not None:
            self.served.unanswered -= 1
            self.served.lost.append((self.told, usage))


async def ask(
    request: Request,
    lane: Lane,
    letter: Letter,
    send: Send,
    *,
    told: Told,
    served: Served,
    looks_in: bool,
    cools: Callable[[], bool],
) -> Sent:
    """Send a call by a lane, and tell the lane's circuit how that went.

    looks_in: whether the beginning of a stream is waited for, to see if it is an error.
    cools: whether the lane rests when it was told that it asks too much.
    """
    try:
        hold = await _hold(request, lane)
    except UpstreamError as error:
        return Sent(told, served, of_error(error), error)
    # Until it is known better: who leaves twice has the call settled before this has ended.
    served.unanswered += 1
    before = request.sends
    try:
        response = await send(request, lane, letter)
        try:
            outcome = await _outcome(request, response, looks_in=looks_in)
        except BaseException:
            await response.body.aclose()
            raise
    except UpstreamError as error:
        outcome = of_error(error)
        if not outcome.may_have_worked:
            served.unanswered -= 1
        if outcome.what != "busy" and not error.ours and not _was_hurried(error, lane, letter):
            hold.judge(failed=True)
        hold.end(Ending.FAILED)
        return Sent(told, served, outcome, error)
    except BaseException as error:
        if isinstance(error, ProxyError) or request.sends == before:
            served.unanswered -= 1
        hold.end(Ending.CANCELLED)
        raise
    if outcome is not None:
        served.unanswered -= 1
    _judge(lane, hold, outcome, cools=cools)
    return Sent(told, served, outcome, None, response, hold)


async def _hold(request: Request, lane: Lane) -> Hold:
    gate = lane.provider.gate
    places = None if gate is None else gate.here()
    if places is not None and not await places.enter(request.subject):
        raise UpstreamBusy
    token = lane.breaker.begin()
    if not token:
        if places is not None:
            places.leave()
        raise UpstreamBusy
    return Hold(lane, places, token)


async def _late_usage(request: Request, response: Response) -> Usage | None:
    """What an answer says it has used, if it says so soon."""
    headers = Headers(response.headers)
    kind, coding = headers.get("content-type"), headers.get("content-encoding")
    reader = reader_for(request.endpoint, response.status, kind, coding)
    try:
        async with asyncio.timeout(_LATE_USAGE):
            async for piece in response.body:
                reader.chunk(piece)
    except (TimeoutError, UpstreamError):
        return None
    usage = reader.usage()
    return usage if usage is not None and usage.measured else None


async def _outcome(request: Request, response: Response, *, looks_in: bool) -> Outcome | None:
    """What is wrong with an answer; None for nothing."""
    if response.status >= 400:
        return of_answer(response.status, response.headers, time.time())
    if not looks_in:
        return None
    if looks_wrong(response, request.endpoint):
        return Outcome("bad_response")
    if not response.event_stream:
        return None
    note = request.note
    if note is not None:
        note.waits()
    try:
        found = await peek(response, request.endpoint, seconds=PEEK)
    finally:
        if note is not None:
            note.back()
    if not found.failed:
        return None
    return Outcome(found.status) if found.status else Outcome("bad_response")


def _was_hurried(error: UpstreamError, lane: Lane, letter: Letter) -> bool:
    """Whether an upstream was given less time than it is allowed, and so was not at fault."""
    hurried = letter.timeouts.first_byte < lane.provider.upstream.timeouts.first_byte
    return hurried and isinstance(error, UpstreamTimeout) and error.waited_for == "first_byte"


def _judge(lane: Lane, hold: Hold, outcome: Outcome | None, *, cools: Callable[[], bool]) -> None:
    what = None if outcome is None else outcome.what
    if outcome is None or what != _TOO_MANY:
        hold.judge(failed=what in _TROUBLE or what == "bad_response")
    elif cools():
        lane.breaker.cool(COOL if outcome.retry_after is None else outcome.retry_after)
