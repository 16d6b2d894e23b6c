"""What a caller sends while nobody reads yet, and how its leaving is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ai_proxy_mw import _ahead
from ai_proxy_mw._ahead import Ahead
from ai_proxy_mw._errors import ClientGone, InvalidRequest, PayloadTooLarge, RequestTimeout
from ai_proxy_mw._incoming import RequestBody

Sent = asyncio.Queue[tuple[bytes, bool] | Exception]


class Caller:
    """Sends by hand."""

    def __init__(self, **more: Any) -> None:
        self.sent: Sent = asyncio.Queue()
        self.heard: list[str] = []
        self.body = RequestBody(self._pull, **{"declared": None, "limit": 1 << 20, **more})

    async def _pull(self) -> tuple[bytes, bool]:
        item = await self.sent.get()
        if isinstance(item, Exception):
            raise item
        return item

    def take_ahead(self) -> Ahead:
        return self.body.take_ahead(lambda: self.heard.append("gone"))

    async def sends(self, *items: tuple[bytes, bool] | Exception) -> None:
        for item in items:
            self.sent.put_nowait(item)
        for _ in range(5):
            await asyncio.sleep(0)


def case(work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def in_time() -> None:
        async with asyncio.timeout(5):
            await work()

    return lambda: asyncio.run(in_time())


@case
async def test_all_that_came_is_one_piece() -> None:
    caller = Caller()
    ahead = caller.take_ahead()
    await caller.sends((b"a", False), (b"b", False))
    assert (caller.body.arrived, caller.body.ended) == (False, False)
    await caller.sends((b"c", True))
    assert (caller.body.arrived, caller.body.ended) == (True, False)  # it is yet unread
    ahead.stop()  # it is late to say so
    assert await caller.body.whole() == b"abc"
    assert caller.body.ended


@case
async def test_who_reads_waits_for_no_more_than_a_piece() -> None:
    caller = Caller()
    caller.take_ahead()
    reading = asyncio.create_task(caller.body.__anext__())
    await caller.sends()
    assert not reading.done()
    await caller.sends((b"a", False))
    assert await reading == b"a"
    await caller.sends((b"b", True))
    assert await caller.body.read() == b"b"


@case
async def test_a_long_body_is_left_to_who_reads() -> None:
    caller = Caller()
    caller.take_ahead()
    piece = b"x" * (_ahead.MOST - 1)
    await caller.sends((piece, False), (piece, False), (b"end", True))
    assert caller.sent.qsize() == 1
    assert await caller.body.whole() is None
    assert [each async for each in caller.body] == [piece + piece, b"end"]


@case
async def test_the_cap_holds_for_what_came_ahead() -> None:
    caller = Caller(limit=2)
    caller.take_ahead()
    await caller.sends((b"abc", True))
    with pytest.raises(PayloadTooLarge):
        await caller.body.read()


@case
async def test_a_leaving_is_told_once_and_to_who_reads() -> None:
    caller = Caller()
    ahead = caller.take_ahead()
    await caller.sends((b"a", False), ClientGone())
    assert ahead.gone
    assert caller.heard == ["gone"]
    with pytest.raises(ClientGone):
        await caller.body.read()


@case
async def test_what_else_is_wrong_is_told_to_who_reads() -> None:
    caller = Caller()
    ahead = caller.take_ahead()
    await caller.sends(InvalidRequest("bad chunk"))
    assert not ahead.gone
    assert caller.heard == []
    with pytest.raises(InvalidRequest, match="bad chunk"):
        await caller.body.read()


@case
async def test_what_nobody_wants_is_not_waited_for() -> None:
    caller = Caller()
    ahead = caller.take_ahead()
    await caller.sends((b"a", False))
    ahead.stop()
    await caller.sends((b"b", False))
    assert caller.sent.qsize() == 1
    assert caller.heard == []


@case
async def test_a_body_that_never_comes_is_waited_for_as_any() -> None:
    caller = Caller(patience=1.0)
    caller.take_ahead()
    await caller.sends()
    now = asyncio.get_running_loop().time()
    caller.body.check(now + 5)  # nobody reads
    reading = asyncio.create_task(caller.body.read())
    await caller.sends()
    caller.body.check(now + 0.5)
    await caller.sends()
    assert not reading.done()
    caller.body.check(now + 5)
    with pytest.raises(RequestTimeout):
        await reading
