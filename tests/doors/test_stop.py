"""How a stop begins and ends: signals, the lifespan, the end of the process."""

from __future__ import annotations

import asyncio
import gc
import io
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from ai_proxy_mw import (
    CORS,
    AIProxy,
    AIProxyMiddleware,
    AIProxyWSGIMiddleware,
    ConfigurationError,
    Upstream,
)
from ai_proxy_mw import _signals as signals_module
from ai_proxy_mw._bridge import HIGH_WATER, Bridge, Broken, Piece
from ai_proxy_mw._errors import ClientGone
from ai_proxy_mw._loop import DRAINING, LoopThread, loop_thread
from ai_proxy_mw._signals import follow
from ai_proxy_mw._stop import Stop
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.conftest import IN_PROCESS
from tests.doors.calls import Clock


def _proxy(fake: FakeUpstream, **options: Any) -> AIProxy:
    upstream = Upstream(base_url=FAKE_BASE_URL, transport=fake.transport())
    return AIProxy(upstream=upstream, **({"anonymous": True} | options))


# -- signals ---------------------------------------------------------------------------------

Install = Callable[[int, Any], Any]


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Sets handlers; what was there before is there again after the test."""
    monkeypatch.setattr(signals_module, "_followers", ())
    before = {number: signal.getsignal(number) for number in signals_module.STOPS}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield signal.signal
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_begins_the_stop_and_then_does_what_it_did(handlers: Install) -> None:
    stops = [Stop(drain=1, signals=True), Stop(drain=1, signals=True)]
    heard: list[tuple[int, bool]] = []
    handlers(signal.SIGTERM, lambda number, frame: heard.append((number, bool(stops[0].deadline))))
    for stop in (*stops, stops[0]):
        stop.meet()
    assert len(signals_module._followers) == 2
    signal.raise_signal(signal.SIGTERM)
    assert heard == [(signal.SIGTERM, True)]
    assert all(stop.deadline for stop in stops)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler])
def test_where_nobody_handles_it_nothing_is_installed(handlers: Install, handler: Any) -> None:
    handlers(signal.SIGINT, handler)
    Stop(drain=1, signals=True).listen()
    assert signal.getsignal(signal.SIGINT) is handler


def test_who_does_not_want_it_is_left_alone(handlers: Install) -> None:
    def handler(number: int, frame: object) -> None:
        raise AssertionError

    handlers(signal.SIGTERM, handler)
    Stop(drain=1, signals=False).meet()
    thread = threading.Thread(target=Stop(drain=1, signals=True).meet)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_the_servers_handler_runs_whatever_happens_before(handlers: Install) -> None:
    class Broken:
        def begin(self) -> None:
            raise ValueError("a fault")

    heard: list[int] = []
    handlers(signal.SIGTERM, lambda number, frame: heard.append(number))
    broken = Broken()
    follow(broken)
    with pytest.raises(ValueError, match="a fault"):
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    del broken
    gc.collect()
    signal.raise_signal(signal.SIGTERM)
    assert len(heard) == 2


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_event_loops_hear_their_signals_still(
    fake: FakeUpstream, handlers: Install, kind: str
) -> None:
    import uvloop

    proxy = _proxy(fake)
    factory = asyncio.new_event_loop if kind == "asyncio" else uvloop.new_event_loop

    async def main() -> bool:
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, heard.set)
        proxy.follow_signals()
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            await heard.wait()
        loop.remove_signal_handler(signal.SIGTERM)
        return proxy.terms.stop.deadline is not None

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main())


# -- what callers see ------------------------------------------------------------------------


@pytest.mark.parametrize("door", IN_PROCESS)
def test_new_calls_are_refused_in_the_usual_shape(fake: FakeUpstream, door: str) -> None:
    proxy = _proxy(fake, cors=CORS(allow_origins=["https://app.example"]))
    with IN_PROCESS[door](proxy) as url:
        assert httpx.get(f"{url}/v1/models").status_code == 200
        proxy.begin_shutdown()
        deadline = proxy.terms.stop.deadline
        proxy.begin_shutdown()
        assert proxy.terms.stop.deadline == deadline
        answer = httpx.get(f"{url}/v1/models", headers={"origin": "https://app.example"})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "unavailable"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-request-id"]
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        if door == "uvicorn":
            assert answer.headers["connection"] == "close"
        asyncio.run(proxy.aclose())
        assert httpx.get(f"{url}/v1/models").status_code == 200
    assert len(fake.requests) == 2


def test_http_2_has_no_connection_to_close(fake: FakeUpstream) -> None:
    proxy = _proxy(fake)
    proxy.begin_shutdown()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "2",
        "method": "GET",
        "path": "/v1/models",
        "query_string": b"",
        "headers": [],
    }
    asyncio.run(AIProxyMiddleware(proxy=proxy)(scope, receive, send))
    assert sent[0]["status"] == 503
    assert b"connection" not in dict(sent[0]["headers"])


# -- the lifespan ----------------------------------------------------------------------------


def test_the_lifespan_waits_for_calls_and_begins_anew(fake: FakeUpstream) -> None:
    proxy = _proxy(fake)
    stop = proxy.terms.stop
    messages: asyncio.Queue[Any] = asyncio.Queue()
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        seen.append("the app shuts down")
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message: Any) -> None:
        seen.append(message["type"])

    async def main() -> None:
        stop.begin()
        lifespan: Any = AIProxyMiddleware(app, proxy=proxy)(
            {"type": "lifespan"}, messages.get, send
        )
        task = asyncio.ensure_future(lifespan)
        messages.put_nowait({"type": "lifespan.startup"})
        await asyncio.sleep(0.01)
        assert stop.deadline is None
        call = object()
        stop.calls.add(call)
        messages.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.sleep(0.06)
        assert vars(stop)["deadline"] is not None
        assert seen == ["lifespan.startup.complete"]
        stop.calls.discard(call)
        await task
        assert seen[1:] == ["the app shuts down", "lifespan.shutdown.complete"]
        assert stop.deadline is None

    asyncio.run(main())


def test_nobody_is_waited_for_for_ever() -> None:
    clock = Clock()
    stop = Stop(drain=5, signals=False, clock=clock)
    stop.calls.add(stop)
    stop.begin()
    clock.now += 8
    asyncio.run(stop.idle())


# -- arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"keepalive": 0}, "None for never"),
        ({"keepalive": True}, "None for never"),
        ({"keepalive": float("inf")}, "None for never"),
        ({"on_disconnect": "ignore"}, "write 'cancel' or 'drain'"),
        ({"drain_max": 0}, "drain_max=0: write"),
        ({"drain_max": "60"}, "drain_max='60': write"),
        ({"drain": -1}, "0 for none"),
        ({"drain": float("nan")}, "0 for none"),
    ],
)
def test_wrong_arguments_say_what_to_write(
    fake: FakeUpstream, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigurationError, match=text):
        _proxy(fake, **options)


def test_right_ones_are_taken(fake: FakeUpstream) -> None:
    assert _proxy(fake, keepalive=None, drain=0).terms.keepalive == float("inf")
    assert _proxy(fake, drain_max=5).terms.drain_max is None
    assert _proxy(fake, on_disconnect="drain", drain_max=5).terms.drain_max == 5


# -- the bridge of the WSGI door -------------------------------------------------------------


def test_a_worker_that_is_let_go_has_nothing_left_to_do() -> None:
    async def main() -> None:
        bridge = Bridge(asyncio.get_running_loop())
        job = asyncio.ensure_future(bridge.run_sync(lambda: "never"))
        full = asyncio.ensure_future(bridge.send(Piece(None, b"x" * (HIGH_WATER + 1), False)))
        await asyncio.sleep(0)
        assert not full.done()
        bridge.let_go()
        await full
        with pytest.raises(ClientGone):
            await job
        with pytest.raises(ClientGone):
            await bridge.run_sync(lambda: "never")
        await bridge.send(Piece(None, b"more", False))
        assert isinstance(bridge.take(), Broken)

    asyncio.run(main())


def test_a_worker_that_waits_looks_up_now_and_then() -> None:
    async def main() -> None:
        bridge = Bridge(asyncio.get_running_loop())
        with ThreadPoolExecutor() as pool:
            taken = asyncio.get_running_loop().run_in_executor(pool, bridge.take)
            await asyncio.sleep(0.3)
            bridge.break_off()
            assert isinstance(await taken, Broken)

    asyncio.run(main())


def _environ(sock: socket.socket, fake: FakeUpstream) -> dict[str, Any]:
    body = b'{"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}'
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/chat/completions",
        "QUERY_STRING": "",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "gunicorn.socket": sock,
    }


def test_a_worker_whose_caller_has_left_is_free_while_his_call_is_drained(
    fake: FakeUpstream,
) -> None:
    app = AIProxyWSGIMiddleware(proxy=_proxy(fake, on_disconnect="drain"))
    here, there = socket.socketpair()
    with here, fake.hold("headers") as gate, ThreadPoolExecutor() as pool:
        call = pool.submit(app, _environ(here, fake), lambda status, headers: None)
        gate.wait_until_held()
        there.close()
        with pytest.raises(ConnectionResetError):
            call.result(5)
        assert fake.calls_open == 1
    deadline = time.monotonic() + 5
    while fake.requests[0].outcome != "complete":
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_stop_does_not_wait_for_a_body_that_does_not_come(fake: FakeUpstream) -> None:
    """The worker is in the server's own read, where nothing else reaches it."""
    proxy = _proxy(fake, drain=0.1)
    app = AIProxyWSGIMiddleware(proxy=proxy)
    here, there = socket.socketpair()
    statuses: list[str] = []
    with here, there, here.makefile("rb") as stream, ThreadPoolExecutor() as pool:
        environ = _environ(here, fake) | {"wsgi.input": stream}
        call = pool.submit(app, environ, lambda status, headers: statuses.append(status))
        time.sleep(0.1)
        proxy.begin_shutdown()
        assert b"unavailable" in b"".join(call.result(5))
    assert statuses == ["503 Service Unavailable"]


def test_a_worker_that_goes_before_its_call_has_begun_leaves_nothing(fake: FakeUpstream) -> None:
    from ai_proxy_mw.wsgi import _Call

    here, there = socket.socketpair()
    proxy = _proxy(fake)
    with here, there:
        call = _Call(proxy, _environ(here, fake), "/chat/completions")

        async def begin_and_leave() -> None:
            call._begin()
            call._on_leave()
            with pytest.raises(asyncio.CancelledError):
                await call._task

        loop_thread().run(begin_and_leave())
    assert proxy.terms.stop.calls == set()
    assert fake.requests == []


@pytest.mark.parametrize("within", [True, False])
def test_the_end_of_the_process_gives_what_is_drained_a_moment(
    within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ai_proxy_mw._loop.DRAIN_WITHIN", 5.0 if within else 0.01)
    thread = LoopThread()

    async def work() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.set_name(DRAINING)
        await asyncio.sleep(0.1)
        return "drained"

    running = asyncio.run_coroutine_threadsafe(work(), thread.loop)
    while DRAINING not in {task.get_name() for task in asyncio.all_tasks(thread.loop)}:
        time.sleep(0.005)
    thread.stop()
    assert thread.loop.is_closed()
    assert running.cancelled() is not within
    if within:
        assert running.result() == "drained"
