"""The small parts, where a socket would not reach every corner."""

from __future__ import annotations

import asyncio
import gzip
import socket
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw import (
    Body,
    Ending,
    Headers,
    Origin,
    Outbound,
    Request,
    Response,
    Timeouts,
    Upstream,
    _loop,
)
from ai_proxy_mw._api_keys import ApiKeys
from ai_proxy_mw._bridge import Bridge, Broken, Piece
from ai_proxy_mw._calls import read_head
from ai_proxy_mw._delivery import Truncated, deliver
from ai_proxy_mw._encoding import Decoded, acceptable, accepts
from ai_proxy_mw._errors import (
    ClientGone,
    PayloadTooLarge,
    RequestTimeout,
    Unavailable,
    UpstreamDisconnected,
    UpstreamProtocolError,
)
from ai_proxy_mw._header_rules import Outward, inward
from ai_proxy_mw._http import BytesBody
from ai_proxy_mw._identify import choose, from_route
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw._leaving import Leaving
from ai_proxy_mw._rounds import Rounds


class Pieces(Body):
    """A body of given pieces; an exception among them is raised."""

    def __init__(self, *pieces: bytes | BaseException, announced: bool = True) -> None:
        self._pieces = list(pieces)
        self._announced = announced
        self.closed = 0

    @property
    def ended(self) -> bool:
        return self._announced and not self._pieces

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        return piece

    async def aclose(self) -> None:
        self.closed += 1


class Watcher:
    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.ends: list[Ending] = []

    def chunk(self, data: bytes) -> None:
        self.chunks.append(data)

    def end(self, how: Ending) -> None:
        self.ends.append(how)


def _deliver(response: Response) -> tuple[list[tuple[bytes, bool]], BaseException | None]:
    sent: list[tuple[bytes, bool]] = []
    heads: list[Response] = []

    async def write(chunk: bytes, last: bool) -> None:
        if chunk == b"!":
            raise ValueError(chunk)
        sent.append((chunk, last))

    async def start(started: Response) -> None:
        assert started is response
        heads.append(started)

    async def main() -> BaseException | None:
        try:
            await deliver(response, start, write)
        except BaseException as error:  # noqa: BLE001 - each kind is a case here
            return error
        return None

    raised = asyncio.run(main())
    assert len(heads) == 1 or (raised is not None and not sent)
    return sent, raised


def test_who_leaves_twice_is_settled_none_the_less() -> None:
    """The second time may come while the upstream's connection is closed."""

    class Lingering(Pieces):
        async def aclose(self) -> None:
            await super().aclose()
            await asyncio.Event().wait()

    async def nothing(*_: Any) -> None:
        pass

    async def main() -> Watcher:
        watcher = Watcher()
        body = Lingering(b"a", announced=False)
        response = Response(200, [], body)
        response.observers.append(watcher)
        delivery = asyncio.create_task(deliver(response, nothing, nothing))
        while not body.closed:
            await asyncio.sleep(0)
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
        return watcher

    assert len(asyncio.run(main()).ends) == 1


ERROR_EVENT = b"event: error\ndata: " + UpstreamDisconnected().body()[:-1] + b',"type":"error"}\n\n'

DELIVERIES: dict[str, tuple[list[bytes | BaseException], bool, Any, Ending, Any]] = {
    "whole": ([b"a", b"b"], False, [b"a", b"b"], Ending.COMPLETE, None),
    "empty": ([], False, [b""], Ending.COMPLETE, None),
    "cut": ([b"a", UpstreamDisconnected()], False, [b"a"], Ending.CUT, Truncated),
    "cut between events": (
        [b"data: 1\n\n", UpstreamDisconnected()],
        True,
        [b"data: 1\n\n", ERROR_EVENT],
        Ending.CUT,
        None,
    ),
    "cut between bytes of events": (
        [b"data: 1\r", b"\n", b"\r", b"\n", UpstreamDisconnected()],
        True,
        [b"data: 1\r", b"\n", b"\r", b"\n", ERROR_EVENT],
        Ending.CUT,
        None,
    ),
    "cut in an event": (
        [b"data: 1", UpstreamDisconnected()],
        True,
        [b"data: 1"],
        Ending.CUT,
        Truncated,
    ),
    "cancelled": ([b"a", asyncio.CancelledError()], False, [b"a"], Ending.CANCELLED, BaseException),
    "left": ([b"a", ClientGone()], False, [b"a"], Ending.CANCELLED, ClientGone),
    "cut between events of a told length": (
        [b"data: 1\n\n", UpstreamDisconnected()],
        True,
        [b"data: 1\n\n"],
        Ending.CUT,
        Truncated,
    ),
    "our fault": ([b"a", b"!"], False, [b"a"], Ending.FAILED, ValueError),
}


@pytest.mark.parametrize("case", DELIVERIES)
@pytest.mark.parametrize("announced", [True, False])
def test_a_delivery_ends_in_one_way_and_says_which(case: str, announced: bool) -> None:
    pieces, event_stream, expected, ending, error = DELIVERIES[case]
    body = Pieces(*pieces, announced=announced)
    told = [(b"content-length", b"99")] if "length" in case else []
    response = Response(200, told, body)
    response.event_stream = event_stream
    watcher = Watcher()
    response.observers.append(watcher)
    sent, raised = _deliver(response)
    chunks = [chunk for chunk, _ in sent if chunk] or [b""]
    assert chunks == expected
    assert [last for _, last in sent].count(True) == (raised is None)
    assert (raised is None) if error is None else isinstance(raised, error)
    assert watcher.ends == [ending]
    assert body.closed == 1
    if ending is Ending.COMPLETE:
        assert b"".join(watcher.chunks) == b"".join(expected)


def _request_body(*messages: tuple[bytes, bool], **options: Any) -> RequestBody:
    waiting = list(messages)

    async def pull() -> tuple[bytes, bool]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    return RequestBody(pull, **({"declared": None, "limit": 100, "patience": 0.05} | options))


async def _all(body: Body) -> bytes:
    return b"".join([chunk async for chunk in body])


def test_a_request_body_that_was_read_can_be_had_again() -> None:
    async def main() -> None:
        for pieces in ([(b"abc", True)], [(b"a", False), (b"bc", False), (b"", True)]):
            body = _request_body(*pieces)
            assert [await body.read(), await body.read(), await body.whole()] == [b"abc"] * 3
            assert body.ended
        assert await _request_body(empty=True).read() == b""

    asyncio.run(main())


def test_a_request_body_comes_in_one_piece_or_in_many() -> None:
    async def main() -> None:
        assert await _request_body((b"abc", True)).whole() == b"abc"
        assert await _request_body((b"", False), (b"abc", True)).whole() == b"abc"
        assert await _request_body((b"", True)).whole() == b""
        assert await _request_body(empty=True).whole() == b""
        body = _request_body((b"a", False), (b"b", False), (b"", True))
        assert await body.whole() is None
        ended = [body.ended]
        assert await _all(body) == b"ab"
        assert await _all(body) == b""
        assert [*ended, body.ended] == [False, True]
        closed = _request_body((b"a", False))
        await closed.aclose()
        assert await _all(closed) == b""

    asyncio.run(main())


def test_a_request_body_has_a_cap_and_a_patience() -> None:
    async def main() -> None:
        with pytest.raises(PayloadTooLarge):
            await _request_body((b"a", True), declared=101).whole()
        body = _request_body((b"a" * 60, False), (b"a" * 60, True))
        assert await body.whole() is None
        with pytest.raises(PayloadTooLarge):
            await _all(body)
        late = _request_body()
        waiting = asyncio.ensure_future(late.whole())
        await asyncio.sleep(0)
        late.check(asyncio.get_running_loop().time())  # not yet
        await asyncio.sleep(0)
        assert not waiting.done()
        late.check(asyncio.get_running_loop().time() + 1)
        with pytest.raises(RequestTimeout):
            await waiting
        waiting = asyncio.ensure_future(_request_body(patience=10).whole())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())


class Slow:
    """A call that wants to be looked at a number of times."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.done = asyncio.Event()

    def attend(self, now: float) -> bool:
        self.left -= 1
        if self.left == 0:
            self.done.set()
        return self.left > 0


def test_rounds_look_after_calls_until_they_are_done_and_then_stand_still() -> None:
    rounds = Rounds()

    async def main() -> None:
        for _ in range(2):
            calls = [Slow(1), Slow(3)]
            for call in calls:
                rounds.join(call)
            async with asyncio.timeout(5):
                for call in calls:
                    await call.done.wait()
            assert [call.left for call in calls] == [0, 0]
            while rounds._last is not None and rounds._last.ticking:
                await asyncio.sleep(0.01)
        rounds.join(Slow(100))  # and is left behind with its loop

    asyncio.run(main())
    asyncio.run(main())


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", b"identity"),
        (b"gzip", b"gzip"),
        (b"gzip, deflate, br", b"gzip, deflate"),
        (b"br;q=1.0, GZIP;q=0.5", b"gzip"),
        (b"gzip;q=0", b"identity"),
        (b"gzip; q=0.0, deflate;q=0.001", b"deflate"),
        (b"*", b"gzip, deflate"),
        (b"*;q=0", b"identity"),
        (b"gzip;q=0, *", b"deflate"),
        (b"gzip; q = 0.000", b"identity"),
        (b"identity", b"identity"),
        (b"gzip," * 100, b"identity"),
    ],
)
def test_only_codings_that_we_could_take_off_are_asked_for(header: bytes, expected: bytes) -> None:
    assert acceptable(header) == expected


def test_what_a_caller_accepts() -> None:
    assert accepts(b"br, gzip", b"br")
    assert not accepts(b"*", b"br")
    assert not accepts(b"br;q=0", b"br")


def _decode(coding: bytes, *pieces: bytes, announced: bool = True) -> list[bytes]:
    async def main() -> list[bytes]:
        body = Decoded(Pieces(*pieces, announced=announced), coding)
        await body.ready()
        decoded = [piece async for piece in body]
        assert body.ended == (announced and bool(pieces))
        await body.aclose()
        return decoded

    return asyncio.run(main())


@given(st.binary(max_size=300), st.integers(1, 50), st.sampled_from([b"gzip", b"deflate"]))
def test_a_coding_comes_off_however_it_is_cut(data: bytes, size: int, coding: bytes) -> None:
    packed = gzip.compress(data) if coding == b"gzip" else zlib.compress(data)
    pieces = [packed[i : i + size] for i in range(0, len(packed), size)]
    assert b"".join(_decode(coding, *pieces)) == data


def test_a_bomb_comes_in_small_pieces() -> None:
    pieces = _decode(b"gzip", gzip.compress(bytes(10 << 20)))
    assert sum(map(len, pieces)) == 10 << 20
    assert max(map(len, pieces)) <= 64 * 1024


PACKED = gzip.compress(b"abc", mtime=0)  # the same in each process that collects tests


@pytest.mark.parametrize(
    "packed",
    [b"no gzip", PACKED[:-3], PACKED + b"more", b"\x1f"],
)
def test_what_is_not_whole_and_nothing_else_is_a_bad_answer(packed: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        _decode(b"gzip", packed)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_several_members_are_one_body_and_none_is_an_empty_one(size: int) -> None:
    packed = gzip.compress(b"abc") + gzip.compress(b"") + gzip.compress(b"def")
    pieces = [packed[i : i + size] for i in range(0, len(packed), size)]
    assert b"".join(_decode(b"gzip", *pieces)) == b"abcdef"
    sent, _ = _deliver(Response(200, [], Decoded(Pieces(packed), b"gzip")))
    assert b"".join(chunk for chunk, _ in sent) == b"abcdef"
    assert _decode(b"gzip", announced=False) == []


def test_a_packed_answer_that_is_broken_shows_before_its_head_goes_out() -> None:
    async def main() -> None:
        body = Decoded(Pieces(b"no gzip"), b"gzip")
        with pytest.raises(UpstreamProtocolError):
            await body.ready()
        body = Decoded(Pieces(gzip.compress(b"abc")), b"gzip")
        await body.ready()
        await body.ready()  # twice is once
        assert await _all(body) == b"abc"

    asyncio.run(main())


def test_headers_are_read_without_case_and_never_shown() -> None:
    headers = Headers([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    assert headers.get("A") == "1"
    assert headers.get("c") is None
    assert headers.get_all("a") == ["1", "3"]
    assert "B" in headers
    assert dict(headers) == {"a": "3", "b": "2"}
    assert repr(headers) == "Headers(['a', 'b', 'a'])"


async def _never(function: Any) -> Any:
    raise AssertionError(function)


def _request(*headers: tuple[bytes, bytes]) -> Request:
    return Request(
        method="GET",
        path="/models",
        query=b"",
        headers=list(headers),
        body=_request_body(),
        client=None,
        request_id="r1",
        run_sync=_never,
    )


def test_cookies_are_read_though_some_be_odd() -> None:
    lines = [(b"cookie", b'a=1; b="2";a=9'), (b"cookie", b"x[y]:,=3; ;nonsense; d=e=f")]
    assert _request(*lines).cookies == {"a": "1", "b": "2", "x[y]:,": "3", "d": "e=f"}
    assert _request().cookies == {}
    secret = (b"authorization", b"Bearer sk-secret")
    assert repr(_request(secret)) == "Request(GET /models id=r1)"


def test_bytes_are_a_body_too() -> None:
    async def main() -> None:
        body = BytesBody(b"abc")
        await body.ready()
        ended = [body.ended]
        assert await _all(body) == b"abc"
        assert [*ended, body.ended] == [False, True]
        left = BytesBody(b"abc")
        await left.aclose()
        assert await _all(left) == b""

    asyncio.run(main())
    assert repr(Response(204, [])) == "Response(204)"


def test_lengths_and_ids() -> None:
    assert read_head([(b"content-length", b"12"), (b"x-request-id", b"a")]) == ("a", 12)
    assert read_head([(b"content-length", b"+1")])[1] is None
    assert read_head([(b"content-length", b"9" * 19)])[1] is None
    assert read_head([])[1] is None
    assert len({read_head([])[0] for _ in range(1000)}) == 1000


def test_some_errors_say_when_to_come_back() -> None:
    assert Unavailable().headers() == [(b"retry-after", b"1")]


def test_importing_the_package_is_quick_and_pulls_in_no_framework() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); import ai_proxy_mw;"
        "print(time.perf_counter() - t, *sys.modules)"
    )
    took = []
    for _ in range(3):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        seconds, *modules = out.stdout.decode().split()
        took.append(float(seconds))
    assert not {"httpx", "fastapi", "flask", "django", "starlette", "limits", "diskcache"} & set(
        modules
    )
    assert min(took) < 1  # the budget of 0.1 s is the benchmark's to watch


# -- between the threads ---------------------------------------------------------------------


class _QuickWorker(asyncio.SelectorEventLoop):
    """A loop under which the worker takes a piece in the moment the sender decides to wait."""

    bridge: Bridge

    def create_future(self) -> asyncio.Future[Any]:
        self.bridge.take()
        return super().create_future()


def test_a_worker_that_is_quicker_than_the_check_is_not_waited_for() -> None:
    loop = _QuickWorker()
    loop.bridge = Bridge(loop)
    piece = Piece(None, bytes(300 * 1024), last=False)
    with pytest.raises(StopIteration):  # it ends without ever having waited
        loop.bridge.send(piece).send(None)
    loop.close()


def test_an_answer_to_who_no_longer_waits_is_dropped() -> None:
    async def main() -> None:
        bridge = Bridge(asyncio.get_running_loop())

        def fail() -> None:
            raise ValueError

        for job in (lambda: None, fail):
            waiting = asyncio.ensure_future(bridge.run_sync(job))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.sleep(0)
            bridge.break_off()
            assert isinstance(bridge.take(), Broken)
            await asyncio.sleep(0)

    asyncio.run(main())


def test_room_is_made_once() -> None:
    async def main() -> None:
        bridge = Bridge(asyncio.get_running_loop())
        sending = asyncio.ensure_future(bridge.send(Piece(None, bytes(300 * 1024), last=False)))
        await asyncio.sleep(0)
        bridge.take()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_closed_socket_is_a_leaving() -> None:
    for closes in (0, 1):
        pair = socket.socketpair()
        left = threading.Event()
        leaving = Leaving({"gunicorn.socket": pair[0]}, left.set)
        leaving.look()
        assert not left.is_set()
        pair[closes].close()
        leaving.look()
        leaving.look()
        assert left.is_set()
        leaving.hang_up()
        pair[1 - closes].close()


def test_where_no_socket_is_shown_nobody_leaves() -> None:
    leaving = Leaving({}, lambda: pytest.fail("nobody has left"))
    leaving.look()
    leaving.hang_up()


def test_a_process_that_never_served_has_no_loop_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop, "_current", None)
    _loop._stop()


# -- header rules ------------------------------------------------------------------------------


def test_an_owner_may_pass_more_headers_and_set_some() -> None:
    upstream = Upstream(
        base_url="https://api.example/v1",
        api_key="k",
        auth="x-api-key",
        headers={
            "OpenAI-Beta": "own",
            "Host": "other.example",
            "User-Agent": "me",
            "Accept-Encoding": "identity",
        },
    )
    outward = Outward(upstream, ["X-Trace"], key="k")
    sent = outward([(b"x-trace", b"1"), (b"openai-beta", b"theirs"), (b"user-agent", b"\xff")])
    assert (b"x-trace", b"1") in sent
    assert (b"x-api-key", b"k") in sent
    assert [value for name, value in sent if name == b"openai-beta"] == [b"own"]
    assert [value for name, value in sent if name == b"host"] == [b"other.example"]
    assert [value for name, value in sent if name == b"user-agent"] == [b"me"]
    assert [value for name, value in sent if name == b"accept-encoding"] == [b"identity"]
    plain = dict(Outward(Upstream(base_url="https://a/v1"), [])([(b"user-agent", b"\xff")]))
    assert plain[b"user-agent"].startswith(b"ai_proxy_mw/")
    assert b"\xff" not in plain[b"user-agent"]
    assert b"authorization" not in dict(sent)


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        (b"no-cache", b"no-cache"),
        (b"Private, max-age=60", b"Private, max-age=60"),
        (b"public, max-age=60", b"private"),
        (b"max-age=60", b"private"),
    ],
)
def test_what_one_user_was_answered_is_not_for_shared_caches(sent: bytes, passed: bytes) -> None:
    lines, _, _ = inward([(b"cache-control", sent), (b"expires", b"x"), (b"age", b"1")])
    assert lines[0] == (b"cache-control", passed)
    assert not {b"expires", b"age"} & {name for name, _ in lines}


class Faulty:
    def attend(self, now: float) -> bool:
        raise ValueError("a fault of one call")


def test_one_calls_fault_does_not_stop_the_clock_of_all(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        rounds = Rounds()
        call = Slow(2)
        rounds.join(Faulty())
        rounds.join(call)
        async with asyncio.timeout(5):
            await call.done.wait()

    asyncio.run(main())
    assert "a fault of one call" in caplog.text


def test_two_loops_at_once_have_clocks_of_their_own() -> None:
    rounds = Rounds()

    async def main() -> None:
        for _ in range(3):
            call = Slow(2)
            rounds.join(call)
            async with asyncio.timeout(5):
                await call.done.wait()

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(asyncio.run, main()) for _ in range(2)]:
            done.result()


def test_a_request_on_its_way_shows_no_key() -> None:
    outbound = Outbound(
        method="GET",
        origin=Origin("http", "x", 1),
        target=b"/",
        headers=[(b"authorization", b"Bearer sk-secret")],
        body=b"sk-secret",
        timeouts=Timeouts(),
    )
    assert "sk-secret" not in repr(outbound)


def test_who_came_through_no_route_is_nobody_that_a_route_has_named() -> None:
    with pytest.raises(RuntimeError, match="did not come through a route"):
        asyncio.run(from_route(_request()))


def test_a_wrapped_coroutine_is_one_and_keys_are_not_shown() -> None:
    async def who(default: str, request: Request) -> str:
        return default

    async def main() -> object:
        return await choose(partial(who, "me"), None, False)(_request())

    assert asyncio.run(main()) == "me"
    assert repr(ApiKeys({"alice": "sk-secret"})) == "ApiKeys(['alice'])"
