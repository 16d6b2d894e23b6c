"""The look at the beginning of a stream."""

from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ai_proxy_mw._errors import UpstreamDisconnected, UpstreamTimeout
from ai_proxy_mw._http import Response
from ai_proxy_mw.routing.peek import Beginning, Peeked, peek
from tests.routing.bodies import cut, rest, stream
from tests.transport._harness import in_loop, until

CHAT = "POST /chat/completions"
MESSAGES = "POST /messages"
RESPONSES = "POST /responses"
LONG = 30.0

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
COMMENT = b": OPENROUTER PROCESSING\n\n"
TOLD = b'{"error":{"code":502,"message":"no"}}'
ERROR = b"data: " + TOLD + b"\n\n"
CONTENT = Peeked(Beginning.CONTENT)
EMPTY = Peeked(Beginning.EMPTY)
UNDECIDED = Peeked(Beginning.UNDECIDED)
FAILED = Peeked(Beginning.ERROR, 502, TOLD)


@in_loop
async def test_the_first_content_decides() -> None:
    response, body = stream(COMMENT, ROLE, WORD, WORD, DONE)
    assert await peek(response, CHAT, seconds=LONG) == CONTENT
    assert body.asked == 3
    assert await rest(response.body) == COMMENT + ROLE + WORD + WORD + DONE


@in_loop
async def test_what_was_held_goes_out_as_one_piece_and_the_rest_as_it_comes() -> None:
    response, body = stream(ROLE, WORD, b"a", b"b")
    await peek(response, CHAT, seconds=LONG)
    held = response.body
    assert [await anext(held), held.ended] == [ROLE + WORD, False]
    assert [await anext(held), held.ended] == [b"a", False]
    assert [await anext(held), held.ended] == [b"b", True]
    with pytest.raises(StopAsyncIteration):
        await anext(held)
    await held.aclose()
    assert body.closed == 1


@in_loop
async def test_a_piece_after_the_beginning_costs_no_frame() -> None:
    response, _ = stream(WORD, b"a")
    await peek(response, CHAT, seconds=LONG)
    await anext(response.body)
    step = response.body.__anext__()
    assert getattr(step, "__qualname__", "") == "Scripted.__anext__"
    assert await step == b"a"


@in_loop
async def test_the_rest_can_be_waited_for() -> None:
    response, body = stream(WORD, b"a")
    body.to_be_ready = UpstreamTimeout("idle")
    await peek(response, CHAT, seconds=LONG)
    await response.body.ready()
    await anext(response.body)
    with pytest.raises(UpstreamTimeout):
        await response.body.ready()


@in_loop
async def test_what_is_all_there_ends_with_what_was_held() -> None:
    response = Response(200, [], ROLE + WORD + DONE)
    assert await peek(response, CHAT, seconds=LONG) == CONTENT
    assert not response.body.ended
    await response.body.ready()
    assert await anext(response.body) == ROLE + WORD + DONE
    assert response.body.ended


@in_loop
async def test_an_error_decides_with_what_was_told() -> None:
    response, _ = stream(COMMENT + ROLE, ERROR, DONE)
    peeked = await peek(response, CHAT, seconds=LONG)
    assert peeked == FAILED
    assert peeked.failed
    assert await rest(response.body) == COMMENT + ROLE + ERROR + DONE


@in_loop
async def test_an_error_after_content_is_none_of_ours() -> None:
    response, _ = stream(WORD + ERROR)
    assert await peek(response, CHAT, seconds=LONG) == CONTENT


@pytest.mark.parametrize("pieces", [[], [COMMENT], [ROLE, COMMENT], [b'{"error":"plain JSON"}\n']])
def test_a_stream_that_says_nothing_has_failed(pieces: list[bytes]) -> None:
    @in_loop
    async def test() -> None:
        response, _ = stream(*pieces)
        peeked = await peek(response, CHAT, seconds=LONG)
        assert peeked == EMPTY
        assert peeked.failed
        assert response.body.ended == (not pieces)
        assert await rest(response.body) == b"".join(pieces)
        assert response.body.ended

    test()


@in_loop
async def test_the_last_event_may_lack_its_blank_line() -> None:
    for end in (b"", b"\n", b"\r", b"\r\n"):
        response, _ = stream(ROLE, ERROR.rstrip() + end)
        assert await peek(response, CHAT, seconds=LONG) == FAILED
        response, _ = stream(ROLE, WORD.rstrip() + end)
        assert await peek(response, CHAT, seconds=LONG) == CONTENT


@in_loop
async def test_no_more_than_so_many_bytes_are_looked_at() -> None:
    response, body = stream(ROLE, ROLE, ROLE, WORD)
    assert await peek(response, CHAT, seconds=LONG, most=2 * len(ROLE)) == UNDECIDED
    assert body.asked == 2
    assert not UNDECIDED.failed
    assert await rest(response.body) == 3 * ROLE + WORD


@in_loop
async def test_the_bound_holds_within_a_piece() -> None:
    for most in (1, len(ROLE), len(ROLE + ERROR) - 1):
        response, _ = stream(ROLE + ERROR)
        assert await peek(response, CHAT, seconds=LONG, most=most) == UNDECIDED
        assert await rest(response.body) == ROLE + ERROR
    response, _ = stream(ROLE + ERROR)
    assert await peek(response, CHAT, seconds=LONG, most=len(ROLE + ERROR)) == FAILED


# -- time --------------------------------------------------------------------------------------


@in_loop
async def test_time_is_over_and_nothing_is_lost() -> None:
    more, end = asyncio.Event(), asyncio.Event()
    response, body = stream(ROLE, more, ROLE, end, WORD, DONE)
    assert await peek(response, CHAT, seconds=0) == UNDECIDED
    assert [await anext(response.body), response.body.ended] == [ROLE, False]
    reader = asyncio.ensure_future(response.body.__anext__())
    await asyncio.sleep(0)
    assert not reader.done()
    more.set()
    assert await reader == ROLE
    assert body.asked == 2  # the task has stopped, though it had no verdict
    end.set()
    assert await rest(response.body) == WORD + DONE
    assert not body.broken


@in_loop
async def test_a_stream_that_is_silent_can_be_waited_for() -> None:
    more = asyncio.Event()
    response, _ = stream(more, WORD)
    assert await peek(response, CHAT, seconds=0.001) == UNDECIDED
    ready = asyncio.ensure_future(response.body.ready())
    await asyncio.sleep(0)
    assert not ready.done()
    more.set()
    await ready
    await response.body.ready()
    assert await rest(response.body) == WORD


@in_loop
async def test_silence_that_ends_the_stream() -> None:
    more = asyncio.Event()
    response, _ = stream(more)
    assert await peek(response, CHAT, seconds=0) == UNDECIDED
    ended = [response.body.ended]
    more.set()
    await response.body.ready()
    assert [*ended, response.body.ended] == [False, True]
    assert await rest(response.body) == b""


@in_loop
async def test_who_waits_for_a_silent_stream_may_be_cancelled() -> None:
    more = asyncio.Event()
    response, body = stream(more, WORD)
    assert await peek(response, CHAT, seconds=0) == UNDECIDED
    reader = asyncio.ensure_future(response.body.__anext__())
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    more.set()
    assert await rest(response.body) == WORD
    assert not body.broken


@in_loop
async def test_a_late_error_comes_after_what_was_held_and_is_said_again() -> None:
    more = asyncio.Event()
    response, _ = stream(ROLE, more, UpstreamTimeout("idle"))
    assert await peek(response, CHAT, seconds=0) == UNDECIDED
    more.set()
    await asyncio.sleep(0.002)  # the task has failed by now
    assert not response.body.ended
    assert await anext(response.body) == ROLE
    assert not response.body.ended
    for _ in range(2):
        with pytest.raises(UpstreamTimeout):
            await anext(response.body)
    with pytest.raises(UpstreamTimeout):
        await response.body.ready()


@in_loop
async def test_a_late_error_that_nobody_asks_for_is_not_reported() -> None:
    more = asyncio.Event()
    response, body = stream(more, UpstreamTimeout("idle"))
    assert await peek(response, CHAT, seconds=0) == UNDECIDED
    more.set()
    await asyncio.sleep(0.002)
    await response.body.aclose()
    assert body.closed == 1


@in_loop
async def test_a_body_that_fails_when_it_is_closed_is_not_reported_either() -> None:
    response, body = stream(asyncio.Event())
    body.when_cancelled = UpstreamDisconnected()
    assert await peek(response, CHAT, seconds=0) == UNDECIDED
    await response.body.aclose()
    assert (body.closed, body.broken) == (1, True)
    gc.collect()  # when asyncio would report it


# -- errors and cancelling ---------------------------------------------------------------------


@in_loop
async def test_an_upstream_that_fails_is_told_and_can_be_closed() -> None:
    response, body = stream(ROLE, UpstreamDisconnected())
    with pytest.raises(UpstreamDisconnected):
        await peek(response, CHAT, seconds=LONG)
    await response.body.aclose()
    assert body.closed == 1


@in_loop
async def test_cancelling_loses_nothing() -> None:
    more = asyncio.Event()
    response, body = stream(ROLE, more, WORD, DONE)
    peeking = asyncio.ensure_future(peek(response, CHAT, seconds=LONG))
    await until(lambda: body.asked == 2)
    peeking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await peeking
    more.set()
    assert await rest(response.body) == ROLE + WORD + DONE


@in_loop
async def test_cancelling_and_closing_leaves_nothing_behind() -> None:
    response, body = stream(ROLE, asyncio.Event(), WORD)
    peeking = asyncio.ensure_future(peek(response, CHAT, seconds=LONG))
    await until(lambda: body.asked == 2)
    peeking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await peeking
    await response.body.aclose()
    assert len(asyncio.all_tasks()) == 1
    assert (body.closed, body.reading) == (1, False)
    await response.body.aclose()
    assert body.closed == 2


@in_loop
async def test_cancelling_before_anything_was_read() -> None:
    response, body = stream(WORD)
    peeking = asyncio.ensure_future(peek(response, CHAT, seconds=LONG))
    await asyncio.sleep(0)
    assert body.asked == 0
    peeking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await peeking
    await response.body.aclose()
    assert body.closed == 1


@in_loop
async def test_it_is_closed_though_closing_is_cancelled() -> None:
    response, body = stream(asyncio.Event(), WORD)
    assert await peek(response, CHAT, seconds=0) == UNDECIDED
    closing = asyncio.ensure_future(response.body.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert body.closed == 1


@in_loop
async def test_who_reads_while_another_closes_is_told() -> None:
    response, body = stream(asyncio.Event(), WORD)
    assert await peek(response, CHAT, seconds=0) == UNDECIDED
    reader = asyncio.ensure_future(response.body.__anext__())
    await asyncio.sleep(0)
    await response.body.aclose()
    with pytest.raises(UpstreamDisconnected):
        await reader
    assert body.closed == 1


# -- however it is cut -------------------------------------------------------------------------

BEGUN = b'event: message_start\ndata: {"type":"message_start","message":{"type":"message"}}\n\n'
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
OVERLOADED = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'
DELTA = (
    'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":'
    '"text_delta","text":"\\"error\\" für ☂"}}\n\n'
).encode()
CREATED = b'event: response.created\ndata: {"type":"response.created","response":{}}\n\n'
FAILURE = (
    b'event: response.failed\ndata: {"type":"response.failed",\n'
    b'data: "response":{"error":{"code":"rate_limit_exceeded"}}}\n\n'
)
TEXT = b'data: {"type":"response.output_text.delta","delta":"x"}\n\n'

STREAMS = [
    (CHAT, COMMENT + ROLE + WORD + DONE, Beginning.CONTENT, 0),
    (CHAT, COMMENT * 3 + ROLE + ERROR + DONE, Beginning.ERROR, 502),
    (CHAT, ROLE + COMMENT, Beginning.EMPTY, 0),
    (CHAT, ROLE + ERROR.rstrip(), Beginning.ERROR, 502),
    (CHAT, b"retry: 5\nid: 1\n\n" + DONE, Beginning.CONTENT, 0),
    (MESSAGES, BEGUN + PING + DELTA, Beginning.CONTENT, 0),
    (MESSAGES, BEGUN + PING + OVERLOADED, Beginning.ERROR, 529),
    (RESPONSES, CREATED + FAILURE, Beginning.ERROR, 429),
    (RESPONSES, CREATED + TEXT, Beginning.CONTENT, 0),
]


def _peeked(endpoint: str, pieces: list[bytes]) -> tuple[Peeked, bytes]:
    async def main() -> tuple[Peeked, bytes]:
        response, _ = stream(*pieces)
        peeked = await peek(response, endpoint, seconds=LONG)
        return peeked, await rest(response.body)

    return asyncio.run(main())


@pytest.mark.parametrize(("endpoint", "text", "beginning", "status"), STREAMS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_a_stream_in_single_bytes_and_in_one(
    endpoint: str, text: bytes, beginning: Beginning, status: int, end: bytes, bom: bytes
) -> None:
    data = bom + text.replace(b"\n", end)
    for size in (1, len(data)):
        peeked, out = _peeked(endpoint, [data[i : i + size] for i in range(0, len(data), size)])
        assert (peeked.beginning, peeked.status) == (beginning, status)
        assert out == data


@given(
    st.sampled_from(STREAMS),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_however_it_is_cut(
    case: tuple[str, bytes, Beginning, int], end: bytes, cuts: list[int]
) -> None:
    endpoint, text, beginning, status = case
    data = text.replace(b"\n", end)
    peeked, out = _peeked(endpoint, cut(data, [min(place, len(data)) for place in cuts]))
    assert (peeked.beginning, peeked.status) == (beginning, status)
    assert out == data


@given(
    st.lists(st.sampled_from([COMMENT, ROLE, WORD, ERROR, DONE, b"\n", b"\r", b"x", b"\xff"])),
    st.lists(st.integers(0, 400), max_size=6),
    st.integers(0, 300),
)
@example([ROLE, ERROR], [len(ROLE) + 3], len(ROLE + ERROR))
def test_whatever_it_holds_and_however_little_is_looked_at(
    parts: list[bytes], cuts: list[int], most: int
) -> None:
    data = b"".join(parts)

    async def main() -> None:
        found = []
        for places in ([], [min(place, len(data)) for place in cuts]):
            response, _ = stream(*filter(None, cut(data, places)))
            found.append(await peek(response, CHAT, seconds=LONG, most=most))
            assert await rest(response.body) == data
        assert found[0] == found[1]

    asyncio.run(main())
