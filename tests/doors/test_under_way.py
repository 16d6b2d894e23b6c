"""What becomes of a call that takes long, by a clock in the hand."""

from __future__ import annotations

import asyncio

import pytest

from ai_proxy_mw._errors import UpstreamDisconnected
from ai_proxy_mw._http import Ending
from ai_proxy_mw._under_way import PING, Cut, UnderWay, respond
from tests.doors.calls import EVENT, Desk, run, settle

ERROR = b'event: error\ndata: {"error":{"message":"The service is stopping."'

# -- comments --------------------------------------------------------------------------------


@run
async def test_silence_is_filled_with_comments_between_events() -> None:
    desk = Desk()
    task = await desk.begin()
    await desk.passes(14.9)
    assert desk.sent == [b"HEAD"]
    await desk.passes(0.2)
    await desk.passes(15.1)
    assert desk.sent == [b"HEAD", PING, PING]
    desk.body.feed(EVENT)
    await settle()
    await desk.passes(14.9)
    desk.body.feed(None)
    assert await task == "whole"
    assert desk.sent == [b"HEAD", PING, PING, EVENT, b""]
    assert desk.seen == [EVENT]  # who watches does not see what is ours
    assert desk.ending is Ending.COMPLETE


@run
async def test_an_event_that_is_half_sent_is_not_broken() -> None:
    desk = Desk()
    task = await desk.begin()
    for piece in (b"data: 1", b"\n", b"\n"):
        desk.body.feed(piece)
        await settle()
        await desk.passes(16)
    desk.body.feed(None)
    await task
    assert desk.sent == [b"HEAD", b"data: 1", b"\n", b"\n", PING, b""]


@pytest.mark.parametrize(
    "headers",
    [[(b"content-length", b"9")], [(b"content-encoding", b"gzip")]],
    ids=["length", "packed"],
)
def test_nothing_is_added_where_there_is_no_room(headers: list[tuple[bytes, bytes]]) -> None:
    async def main() -> None:
        desk = Desk(headers=headers)
        task = await desk.begin()
        await desk.passes(16)
        desk.body.feed(UpstreamDisconnected())
        assert await task == "Truncated"
        assert desk.sent == [b"HEAD"]
        assert desk.ending is Ending.CUT

    asyncio.run(main())


@run
async def test_what_is_no_event_stream_gets_no_comment() -> None:
    desk = Desk(event_stream=False, headers=[(b"content-encoding", b"identity")])
    task = await desk.begin()
    assert await desk.passes(100)
    desk.body.feed(b"x", None)
    await task
    assert desk.sent == [b"HEAD", b"x", b""]
    assert not await desk.passes(1)


@run
async def test_a_body_that_has_ended_gets_no_comment() -> None:
    desk = Desk()
    task = await desk.begin()
    desk.body.feed(EVENT)
    desk.body.over = True
    await settle()
    await desk.passes(16)
    desk.body.feed(None)
    await task
    assert desk.sent == [b"HEAD", EVENT]


@run
async def test_the_next_event_waits_for_the_comment() -> None:
    desk = Desk()
    task = await desk.begin()
    desk.stuck.clear()
    await desk.passes(16)
    desk.body.feed(EVENT, None)
    await settle()
    assert desk.sent == [b"HEAD"]
    desk.stuck.set()
    await task
    assert desk.sent == [b"HEAD", PING, EVENT, b""]


@run
async def test_who_does_not_take_a_comment_is_cut_off() -> None:
    desk = Desk()
    task = await desk.begin()
    desk.stuck.clear()
    await desk.passes(16)
    await desk.passes(31)
    assert await task == "ABORTED"
    assert desk.ending is Ending.CANCELLED
    assert desk.body.closed


@run
async def test_a_comment_that_fails_is_a_leaving() -> None:
    desk = Desk()
    task = await desk.begin()
    desk.fails = BrokenPipeError()
    await desk.passes(16)
    desk.body.feed(EVENT)
    assert await task == "ClientGone"
    assert desk.ending is Ending.CANCELLED


@run
async def test_a_comment_that_is_on_its_way_ends_with_its_call() -> None:
    desk = Desk()
    task = await desk.begin()
    desk.stuck.clear()
    await desk.passes(16)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# -- slow readers ----------------------------------------------------------------------------


@pytest.mark.parametrize("event_stream", [True, False])
def test_who_reads_too_slowly_is_cut_off(event_stream: bool) -> None:
    async def main() -> None:
        desk = Desk(event_stream=event_stream)
        task = await desk.begin()
        desk.stuck.clear()
        desk.body.feed(EVENT)
        await settle()
        await desk.passes(29)
        assert not task.done()
        await desk.passes(2)
        assert await task == "ABORTED"
        assert desk.ending is Ending.CANCELLED
        assert desk.body.closed
        assert desk.sent == [b"HEAD"]

    asyncio.run(main())


@run
async def test_who_reads_slowly_but_reads_is_not() -> None:
    desk = Desk()
    task = await desk.begin()
    for _ in range(4):
        desk.stuck.clear()
        desk.body.feed(EVENT)
        await settle()
        await desk.passes(20)
        desk.stuck.set()
        await settle()
    desk.body.feed(None)
    assert await task == "whole"


# -- leaving ---------------------------------------------------------------------------------


@run
async def test_a_leaving_cancels() -> None:
    desk = Desk()
    task = await desk.begin()
    assert desk.call.leave() is False
    assert await task == "LEFT"
    assert desk.ending is Ending.CANCELLED
    assert desk.body.closed
    assert desk.call.leave() is False  # it is over
    assert not desk.call.caused_cancel()


@run
async def test_drained_it_goes_on_and_is_watched_to_its_end() -> None:
    desk = Desk(drain_max=60.0)
    task = await desk.begin()
    desk.body.feed(EVENT)
    await settle()
    assert desk.call.leave() is True
    assert desk.call.leave() is True
    desk.body.feed(EVENT, EVENT)
    await settle()
    await desk.passes(30)  # nobody is there to be told that it is quiet
    desk.body.feed(None)
    assert await task == "whole"
    assert desk.sent == [b"HEAD", EVENT]
    assert desk.seen == [EVENT] * 3
    assert desk.ending is Ending.CANCELLED


@run
async def test_drained_before_its_head_it_sends_none() -> None:
    desk = Desk(drain_max=60.0)
    desk.leaves_first = True
    desk.body.feed(EVENT, None)
    assert await (await desk.begin()) == "whole"
    assert desk.sent == []
    assert desk.seen == [EVENT]
    assert desk.ending is Ending.CANCELLED


@run
async def test_draining_has_an_end() -> None:
    desk = Desk(drain_max=60.0)
    task = await desk.begin()
    desk.clock.now = asyncio.get_running_loop().time()
    desk.call.leave()
    await desk.passes(59)
    assert not task.done()
    await desk.passes(2)
    assert await task == "LEFT"
    assert desk.ending is Ending.CANCELLED


@run
async def test_a_call_whose_body_has_not_come_is_not_drained() -> None:
    desk = Desk(drain_max=60.0, arrived=False)
    task = await desk.begin()
    assert desk.call.leave() is False
    assert await task == "LEFT"


@pytest.mark.parametrize("drain_max", [None, 60.0])
def test_a_server_that_tells_of_a_leaving_by_an_error(drain_max: float | None) -> None:
    async def main() -> None:
        desk = Desk(drain_max=drain_max)
        task = await desk.begin()
        desk.fails = ConnectionResetError()
        desk.body.feed(EVENT, EVENT, None)
        assert await task == ("ClientGone" if drain_max is None else "whole")
        assert desk.seen == [EVENT] * (1 if drain_max is None else 2)
        assert desk.ending is Ending.CANCELLED

    asyncio.run(main())


@pytest.mark.parametrize("drain_max", [None, 60.0])
@pytest.mark.parametrize("at", ["head", "end", "error"])
def test_a_leaving_is_one_wherever_it_is_told(at: str, drain_max: float | None) -> None:
    async def main() -> None:
        desk = Desk(drain_max=drain_max)
        if at == "head":
            desk.start_fails = ConnectionResetError()
        task = await desk.begin()
        if at != "head":
            desk.fails = ConnectionResetError()
        desk.body.feed(UpstreamDisconnected() if at == "error" else None)
        assert await task == ("ClientGone" if drain_max is None else "whole")
        assert desk.ending is (Ending.CUT if at == "error" else Ending.CANCELLED)

    asyncio.run(main())


@run
async def test_an_upstream_that_fails_while_draining_tells_nobody() -> None:
    desk = Desk(drain_max=60.0)
    task = await desk.begin()
    desk.call.leave()
    desk.body.feed(EVENT, UpstreamDisconnected())
    assert await task == "Truncated"
    assert desk.sent == [b"HEAD"]
    assert desk.ending is Ending.CUT


# -- stopping --------------------------------------------------------------------------------


@run
async def test_a_stream_gets_its_time_and_then_an_error_event() -> None:
    desk = Desk()
    task = await desk.begin()
    desk.body.feed(EVENT)
    await settle()
    desk.stop.begin()
    await desk.passes(9.9)
    assert not task.done()
    await desk.passes(0.2)
    assert await task == "whole"
    assert desk.sent[:2] == [b"HEAD", EVENT]
    assert desk.sent[2].startswith(ERROR)
    assert desk.lasts == 1
    assert desk.ending is Ending.STOPPED
    assert desk.call.error == "unavailable"
    assert desk.body.closed


@run
async def test_a_half_sent_event_gets_a_moment_more() -> None:
    desk = Desk()
    task = await desk.begin()
    desk.body.feed(b"data: 1")
    await settle()
    desk.stop.begin()
    await desk.passes(10.1)
    assert not task.done()
    desk.body.feed(b"\n\n")
    await settle()
    await desk.passes(0.1)
    assert await task == "whole"
    assert desk.sent[-1].startswith(ERROR)


@pytest.mark.parametrize("piece", [b"data: 1", EVENT])
def test_and_no_more_than_that(piece: bytes) -> None:
    """Be it the event's end that does not come, or the caller who does not read."""

    async def main() -> None:
        desk = Desk()
        task = await desk.begin()
        if piece is EVENT:
            desk.stuck.clear()
        desk.body.feed(piece)
        await settle()
        desk.stop.begin()
        await desk.passes(10.5)
        assert not task.done()
        desk.clock.now += 0.6
        for _ in range(2):  # also where it cannot end at once
            desk.call.attend(desk.clock.now)
        assert await task == "ABORTED"
        assert await desk.passes(0.1) is False
        assert desk.ending is Ending.CANCELLED

    asyncio.run(main())


@run
async def test_an_error_event_that_is_not_read_holds_nothing_up() -> None:
    desk = Desk()
    task = await desk.begin()
    desk.stop.begin()
    desk.stuck.clear()
    await desk.passes(10.1)
    await desk.passes(0.1)
    assert not task.done()
    await desk.passes(1)
    await desk.passes(1)
    assert await task == "ABORTED"
    assert desk.ending is Ending.STOPPED


@run
async def test_what_is_no_event_stream_breaks_off() -> None:
    desk = Desk(event_stream=False)
    task = await desk.begin()
    desk.body.feed(b"half")
    await settle()
    desk.stop.begin()
    await desk.passes(10.1)
    assert await task == "Truncated"
    assert desk.ending is Ending.STOPPED


@run
async def test_what_is_drained_ends_with_the_process() -> None:
    desk = Desk(drain_max=60.0)
    task = await desk.begin()
    desk.call.leave()
    desk.stop.begin()
    await desk.passes(10.1)
    assert await task == "LEFT"
    assert desk.ending is Ending.CANCELLED


@run
async def test_a_servers_cancellation_goes_before_ours() -> None:
    desk = Desk()
    task = await desk.begin()
    desk.stop.begin()
    desk.call.cut(Cut.STOPPING)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- before the head -------------------------------------------------------------------------


async def _answered(desk: Desk, *, cancel: bool = False) -> object:
    async def handle(request: object) -> object:
        return await asyncio.Event().wait()

    async def stopping(request: object) -> object:
        return "503"

    async def main() -> object:
        desk.call = UnderWay(desk.terms, None)
        return await respond(None, desk.call, desk.terms, handle, stopping)  # type: ignore[arg-type]

    task = asyncio.create_task(main())
    await settle()
    if cancel:
        task.cancel()
    elif not task.done():
        desk.stop.begin()
        await desk.passes(10.1)
    return await task


@run
async def test_before_the_head_it_is_an_error() -> None:
    assert await _answered(Desk()) == "503"


@run
async def test_who_comes_later_is_refused() -> None:
    desk = Desk()
    desk.stop.begin()
    assert await _answered(desk) == "503"


@run
async def test_what_others_cancel_is_cancelled() -> None:
    with pytest.raises(asyncio.CancelledError):
        await _answered(Desk(), cancel=True)
