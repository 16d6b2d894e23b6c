"""The stage at the gate: who waits, who is turned away, and what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ai_proxy_mw import Concurrency, Request, Response
from ai_proxy_mw._errors import ClientGone, Overloaded
from ai_proxy_mw._hook_threads import run_sync
from ai_proxy_mw._http import Ending
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.routing.gate import Gate
from ai_proxy_mw.stages.shed import ShedStage


class Caller:
    """One behind the ASGI door, that sends by hand."""

    def __init__(self) -> None:
        self.sends: asyncio.Future[tuple[bytes, bool]] = asyncio.Future()
        self.request = Request(
            method="POST",
            path="/chat/completions",
            query=b"",
            headers=[],
            body=RequestBody(self._pull, declared=None, limit=100),
            client=None,
            request_id="r",
            run_sync=run_sync,
            scope={},
        )

    async def _pull(self) -> tuple[bytes, bool]:
        return await self.sends


async def _answer(request: Request) -> Response:
    return Response(200, [])


async def _read(request: Request) -> Response:
    return Response(200, [], await request.body.read())


async def _fail(request: Request) -> Response:
    raise ValueError(request.id)


def _end(response: Response) -> None:
    for observer in response.observers:
        observer.chunk(b"")
        observer.end(Ending.COMPLETE)


async def _settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def case(work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Nothing goes on when it is over."""

    async def whole() -> None:
        await work()
        await _settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    return lambda: asyncio.run(whole())


@case
async def test_a_place_is_had_until_the_answer_has_ended() -> None:
    gate = Gate(Concurrency(1, queue=0))
    stage = ShedStage(gate)
    response = await stage(Caller().request, _answer)
    with pytest.raises(Overloaded) as caught:
        await stage(Caller().request, _answer)
    assert caught.value.headers() == [(b"retry-after", b"2")]
    _end(response)
    with pytest.raises(ValueError, match="r"):
        await stage(Caller().request, _fail)
    assert gate.here().inside == 0


@case
async def test_who_waits_is_read_ahead_and_served() -> None:
    gate = Gate(Concurrency(1))
    stage = ShedStage(gate)
    first = await stage(Caller().request, _answer)
    caller = Caller()
    waits = asyncio.create_task(stage(caller.request, _read))
    await _settle()
    caller.sends.set_result((b"Hi", True))
    await _settle()
    assert caller.request.body.arrived
    _end(first)
    response = await waits
    assert await anext(response.body) == b"Hi"
    _end(response)
    assert gate.here().inside == 0


@case
async def test_who_leaves_while_waiting_is_not_served() -> None:
    gate = Gate(Concurrency(1))
    stage = ShedStage(gate)
    first = await stage(Caller().request, _answer)
    caller = Caller()
    waits = asyncio.create_task(stage(caller.request, _read))
    await _settle()
    caller.sends.set_exception(ClientGone())
    with pytest.raises(ClientGone):
        await waits
    assert gate.here().waiting == 0
    _end(first)
    assert gate.here().inside == 0


@case
async def test_who_is_turned_away_or_cancelled_while_waiting_leaves_nothing_behind() -> None:
    gate = Gate(Concurrency(1, wait=0.001))
    stage = ShedStage(gate)
    first = await stage(Caller().request, _answer)
    with pytest.raises(Overloaded, match="1 s"):
        await stage(Caller().request, _read)
    waits = asyncio.create_task(stage(Caller().request, _read))
    await asyncio.sleep(0)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    _end(first)
    assert (gate.here().inside, gate.here().waiting) == (0, 0)


@case
async def test_what_nobody_reads_is_not_waited_for() -> None:
    gate = Gate(Concurrency(1))
    stage = ShedStage(gate)
    first = await stage(Caller().request, _answer)
    waits = asyncio.create_task(stage(Caller().request, _answer))
    await _settle()
    _end(first)
    _end(await waits)
    assert gate.here().inside == 0
