"""What only one door knows: lifespan, mounting, threads, forks."""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from asgiref.testing import ApplicationCommunicator
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount

from ai_proxy_mw import (
    AIProxy,
    AIProxyMiddleware,
    AIProxyWSGIMiddleware,
    Body,
    Forbidden,
    NativeTransport,
    Outbound,
    Request,
    Response,
    Upstream,
)
from ai_proxy_mw import _loop as loop_module
from ai_proxy_mw._errors import UpstreamDisconnected
from ai_proxy_mw._loop import LoopThread, loop_thread
from ai_proxy_mw._paths import below
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.conftest import IN_PROCESS
from tests.forms import CONTENT_TYPE, opening
from tests.servers import gunicorn, serve_asgi, serve_process, serve_wsgi

STREAM = {"model": "fake-1", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
LENGTH = len(json.dumps(STREAM))


def _proxy(fake: FakeUpstream, **options: Any) -> AIProxy:
    upstream = Upstream(base_url=FAKE_BASE_URL, transport=fake.transport())
    return AIProxy(upstream=upstream, **({"anonymous": True} | options))


# -- ASGI ------------------------------------------------------------------------------------


def test_the_apps_lifespan_runs_and_its_end_closes_the_connections(fake: FakeUpstream) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        seen.append("up")
        yield
        seen.append("down")

    with fake.serve() as upstream:
        app = FastAPI(lifespan=lifespan)
        app.add_middleware(AIProxyMiddleware, upstream=upstream.base_url, anonymous=True)
        with serve_asgi(app) as url:
            assert httpx.get(f"{url}/v1/models").status_code == 200
            assert fake.connections_open == 1
        assert seen == ["up", "down"]
        fake.wait_until_quiet()


@pytest.mark.parametrize("root_path", ["", "/behind/nginx"])
def test_it_can_be_mounted(fake: FakeUpstream, root_path: str) -> None:
    app = Starlette(routes=[Mount("/ai", AIProxyMiddleware(proxy=_proxy(fake)))])
    with serve_asgi(app, root_path=root_path) as url:
        assert httpx.get(f"{url}/ai/v1/models").status_code == 200
        other = httpx.get(f"{url}/ai/elsewhere")
        assert other.status_code == 404
        assert other.json()["error"]["code"] == "unknown_url"
        assert other.headers["x-request-id"]
    assert [seen.path for seen in fake.requests] == ["/v1/models"]


@pytest.mark.parametrize(
    ("path", "root", "rest"),
    [
        ("/v1/models", "", "/models"),
        ("/v1", "", ""),
        ("/v1x/models", "", None),
        ("/shop/v1/models", "/shop", "/models"),  # uvicorn's way
        ("/v1/models", "/shop", "/models"),  # a proxy in front has stripped it
        ("/shopping/v1/models", "/shop", None),
        ("/shop", "/shop", None),
        ("/V1/models", "", None),
        ("//v1/models", "", None),
        ("/x/../v1/models", "", None),
    ],
)
def test_the_prefix_is_found_below_the_root(path: str, root: str, rest: str | None) -> None:
    assert below("/v1", path, root) == rest


def test_served_alone_it_answers_lifespan_and_refuses_websockets(fake: FakeUpstream) -> None:
    async def main() -> None:
        app: Any = AIProxyMiddleware(proxy=_proxy(fake))
        communicator: Any = ApplicationCommunicator  # untyped in asgiref
        lifespan = communicator(app, {"type": "lifespan"})
        await lifespan.send_input({"type": "lifespan.startup"})
        assert (await lifespan.receive_output())["type"] == "lifespan.startup.complete"
        await lifespan.send_input({"type": "lifespan.shutdown"})
        assert (await lifespan.receive_output())["type"] == "lifespan.shutdown.complete"
        websocket = communicator(app, {"type": "websocket", "path": "/v1/models"})
        await websocket.send_input({"type": "websocket.connect"})
        assert (await websocket.receive_output())["type"] == "websocket.close"

    asyncio.run(main())


def test_a_websocket_under_the_prefix_is_the_apps(fake: FakeUpstream) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    middleware: Any = AIProxyMiddleware(app, proxy=_proxy(fake))
    asyncio.run(middleware({"type": "websocket", "path": "/v1/models"}, None, None))
    assert seen == ["websocket"]


def test_without_a_lifespan_it_works_and_can_be_closed_by_hand(fake: FakeUpstream) -> None:
    async def main() -> None:
        with fake.serve() as upstream:
            async with AIProxy(upstream=upstream.base_url, anonymous=True) as proxy:
                app = AIProxyMiddleware(proxy=proxy)
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
                    assert (await client.get("/v1/models")).status_code == 200
                    assert fake.connections_open == 1
            await asyncio.to_thread(fake.wait_until_quiet)

    asyncio.run(main())


def test_one_proxy_serves_one_event_loop_after_another(fake: FakeUpstream) -> None:
    with fake.serve() as upstream:
        proxy = AIProxy(upstream=upstream.base_url, anonymous=True)

        async def main() -> int:
            transport = httpx.ASGITransport(AIProxyMiddleware(proxy=proxy))
            async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
                status = (await client.get("/v1/models")).status_code
            await proxy.aclose()
            return status

        assert [asyncio.run(main()) for _ in range(3)] == [200, 200, 200]
        assert isinstance(proxy._ways.lanes[0].provider.transport, NativeTransport)


class _Early:
    """A transport whose upstream answers at once, whatever is still being sent."""

    async def send(self, outbound: Outbound) -> Response:
        return Response(200, [(b"content-type", b"text/event-stream")], _Endless())

    async def aclose(self) -> None:
        """There is nothing to close."""


class _Endless(Body):
    @property
    def ended(self) -> bool:
        return False

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0.01)
        return b": still here\n\n"

    async def aclose(self) -> None:
        """There is nothing to close."""


def test_a_leaving_is_noticed_while_an_unwanted_body_still_comes() -> None:
    upstream = Upstream(base_url=FAKE_BASE_URL, transport=_Early())
    app = AIProxyMiddleware(upstream=upstream, anonymous=True)
    pieces = [opening(purpose="batch"), b"x", b"x"]
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/files",
        "query_string": b"",
        "headers": [
            (b"transfer-encoding", b"chunked"),
            (b"content-type", CONTENT_TYPE.encode()),
        ],
    }
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 200
    assert sent[-1]["more_body"]  # it ended by the leaving


class _Broken(Body):
    """Breaks off at once, and has said nothing of it while it could."""

    @property
    def ended(self) -> bool:
        return False

    async def __anext__(self) -> bytes:
        raise UpstreamDisconnected

    async def aclose(self) -> None:
        """There is nothing to close."""


class _BreaksOff(_Early):
    async def send(self, outbound: Outbound) -> Response:
        return Response(200, [(b"content-length", b"10")], _Broken())


@pytest.mark.parametrize("door", IN_PROCESS)
def test_an_answer_that_breaks_off_before_its_first_piece_keeps_nobody_waiting(door: str) -> None:
    upstream = Upstream(base_url=FAKE_BASE_URL, transport=_BreaksOff())
    with (
        IN_PROCESS[door](AIProxy(upstream=upstream, anonymous=True)) as url,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.get(f"{url}/v1/models", timeout=10)


def test_a_servers_own_cancellation_is_not_swallowed(fake: FakeUpstream) -> None:
    app = AIProxyMiddleware(proxy=_proxy(fake))

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"model":"fake-1","prompt":"Hi"}'}

    async def send(message: Any) -> None:
        raise AssertionError("nothing was to be sent")

    async def main() -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"32")],
        }
        with fake.hold("headers") as gate:
            task = asyncio.ensure_future(app(scope, receive, send))
            await asyncio.to_thread(gate.wait_until_held)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert fake.wait_for_disconnect().outcome == "disconnected"


# -- identity through both doors ---------------------------------------------------------------

Hook = Callable[[Request], Any]


def _hooks() -> Iterator[tuple[str, Hook]]:
    async def coroutine(request: Request) -> str | None:
        return request.headers.get("x-user")

    def plain(request: Request) -> str | None:
        return request.cookies.get("user")

    def hands_out_a_coroutine(request: Request) -> Any:
        return coroutine(request)

    class Instance:
        async def __call__(self, request: Request) -> str | None:
            return request.headers.get("x-user")

    yield "coroutine", coroutine
    yield "plain", plain
    yield "hands out a coroutine", hands_out_a_coroutine
    yield "instance", Instance()


HOOKS = dict(_hooks())


@pytest.mark.parametrize("door", IN_PROCESS)
@pytest.mark.parametrize("name", HOOKS)
def test_the_apps_function_says_who_calls(fake: FakeUpstream, door: str, name: str) -> None:
    subjects: list[str] = []

    def hook(request: Request) -> Any:
        assert (request.scope is None) == (door == "werkzeug")
        assert (request.environ is None) == (door == "uvicorn")
        assert request.client == "127.0.0.1"
        return HOOKS[name](request)

    proxy = _proxy(fake, anonymous=False, identify=HOOKS[name] if name == "instance" else hook)
    inner = proxy.handle

    async def handle(request: Request) -> Any:
        response = await inner(request)
        subjects.append(request.subject)
        return response

    proxy.handle = handle
    with IN_PROCESS[door](proxy) as url:
        who = {"x-user": "alice", "cookie": "user=alice; theme=dark"}
        assert httpx.get(f"{url}/v1/models", headers=who).status_code == 200
        assert httpx.get(f"{url}/v1/models").status_code == 401
    assert subjects == ["alice", ""]


@pytest.mark.parametrize("door", IN_PROCESS)
def test_raising_forbidden_is_403(fake: FakeUpstream, door: str) -> None:
    def hook(request: Request) -> str:
        raise Forbidden("Your plan has no AI.")

    with IN_PROCESS[door](_proxy(fake, anonymous=False, identify=hook)) as url:
        answer = httpx.get(f"{url}/v1/models")
    assert answer.status_code == 403
    assert answer.json()["error"]["message"] == "Your plan has no AI."


def test_under_wsgi_a_plain_hook_runs_in_the_workers_own_thread(fake: FakeUpstream) -> None:
    local = threading.local()

    def hook(request: Request) -> str | None:
        return getattr(local, "user", None)

    inner = AIProxyWSGIMiddleware(proxy=_proxy(fake, anonymous=False, identify=hook))

    def app(environ: Any, start_response: Any) -> Any:
        local.user = environ.get("HTTP_X_USER")
        return inner(environ, start_response)

    with serve_wsgi(app) as url:
        assert httpx.get(f"{url}/v1/models", headers={"x-user": "bob"}).status_code == 200
        assert httpx.get(f"{url}/v1/models").status_code == 401


KEYS = {"alice": "sk-alice", "bob": "sk-bob"}


@pytest.mark.parametrize("door", IN_PROCESS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("authorization", "Bearer sk-alice")], 200),
        ([("authorization", "bearer   sk-alice")], 200),
        ([("x-api-key", "sk-alice")], 200),
        ([("authorization", "Bearer sk-alice"), ("x-api-key", "sk-alice")], 200),
        ([], 401),
        ([("authorization", "Bearer sk-alic")], 401),
        ([("authorization", "Bearer SK-ALICE")], 401),
        ([("authorization", "Bearer")], 401),
        ([("authorization", "sk-alice")], 401),
        ([("authorization", "Basic sk-alice")], 401),
        ([("authorization", "Bearer sk-alice"), ("authorization", "Bearer sk-mallory")], 401),
        ([("authorization", "Bearer sk-alice"), ("x-api-key", "sk-mallory")], 401),
        ([("authorization", "Basic x"), ("x-api-key", "sk-alice")], 401),
        ([("authorization", "Bearer sk-alice, Bearer sk-alice")], 401),
        ([("cookie", "key=sk-alice")], 401),
    ],
)
def test_issued_keys(
    fake: FakeUpstream, door: str, headers: list[tuple[str, str]], status: int
) -> None:
    with IN_PROCESS[door](_proxy(fake, anonymous=False, api_keys=KEYS)) as url:
        answer = httpx.get(f"{url}/v1/models", headers=headers)
    assert answer.status_code == status
    assert "sk-alice" not in answer.text
    assert all(b"sk-alice" not in value for seen in fake.requests for _, value in seen.headers)


def test_a_slow_hook_holds_up_nobody_else(fake: FakeUpstream) -> None:
    slow = threading.Event()
    entered = threading.Event()

    def hook(request: Request) -> str:
        if request.headers.get("x-slow"):
            entered.set()
            assert slow.wait(10)
        return "me"

    with (
        IN_PROCESS["uvicorn"](_proxy(fake, anonymous=False, identify=hook)) as url,
        ThreadPoolExecutor() as pool,
    ):
        held = pool.submit(httpx.get, f"{url}/v1/models", headers={"x-slow": "1"})
        assert entered.wait(10)
        assert httpx.get(f"{url}/v1/models").status_code == 200
        assert not held.done()
        slow.set()
        assert held.result().status_code == 200


# -- WSGI ------------------------------------------------------------------------------------


def test_a_wsgi_app_without_an_app_behind_it_is_404_elsewhere(fake: FakeUpstream) -> None:
    with serve_wsgi(AIProxyWSGIMiddleware(proxy=_proxy(fake))) as url:
        assert httpx.get(f"{url}/v1/models").status_code == 200
        assert httpx.get(f"{url}/elsewhere").json()["error"]["code"] == "unknown_url"


@pytest.mark.slow
def test_many_threads_share_one_loop(fake: FakeUpstream) -> None:
    with (
        fake.serve() as upstream,
        serve_wsgi(AIProxyWSGIMiddleware(upstream=upstream.base_url, anonymous=True)) as url,
        ThreadPoolExecutor(16) as pool,
    ):

        def call(number: int) -> bool:
            content = f"number {number}"
            body = {**STREAM, "messages": [{"role": "user", "content": content}]}
            with httpx.Client(timeout=30) as client:
                relayed = client.post(f"{url}/v1/chat/completions", json=body).content
                direct = client.post(f"{upstream.base_url}/chat/completions", json=body).content
            return relayed == direct

        assert all(pool.map(call, range(100)))
    assert sum(t.name == "ai_proxy_mw" for t in threading.enumerate()) == 1


def test_a_server_that_shows_no_socket_is_served_too(fake: FakeUpstream) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        del environ["werkzeug.socket"]
        return AIProxyWSGIMiddleware(proxy=_proxy(fake))(environ, start_response)

    with serve_wsgi(app) as url:
        assert httpx.get(f"{url}/v1/models").status_code == 200


def test_a_server_that_tells_of_a_leaving_when_asked(fake: FakeUpstream) -> None:
    """waitress's way."""
    left = threading.Event()
    app = AIProxyWSGIMiddleware(proxy=_proxy(fake))
    environ = _environ(
        **{"waitress.client_disconnected": left.is_set, "CONTENT_LENGTH": str(LENGTH)}
    )
    with fake.hold("headers") as gate, ThreadPoolExecutor() as pool:
        call = pool.submit(app, environ, _start)
        gate.wait_until_held()
        left.set()
        fake.wait_for_disconnect()
        with pytest.raises(ConnectionResetError):
            call.result(10)


def _environ(**changes: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/chat/completions",
        "QUERY_STRING": "",
        "CONTENT_TYPE": "application/json",
        "wsgi.input": io.BytesIO(json.dumps(STREAM).encode()),
        **changes,
    }


def _start(status: str, headers: list[tuple[str, str]]) -> None:
    assert status == "200 OK"


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_closing_the_iterable_cancels_the_upstream_call(fake: FakeUpstream, taken: int) -> None:
    app = AIProxyWSGIMiddleware(proxy=_proxy(fake))
    with fake.hold() as gate:
        gate.release(2)
        answer: Any = app(_environ(CONTENT_LENGTH=str(LENGTH)), _start)
        for _ in range(taken):
            next(answer)
        answer.close()
        answer.close()
        seen = fake.wait_for_disconnect()
    assert seen.chunks_sent <= 3
    assert len(list(answer)) <= 1


def test_a_slow_reader_holds_the_upstream_back() -> None:
    fake = FakeUpstream(download_bytes=50 << 20)
    app = AIProxyWSGIMiddleware(proxy=_proxy(fake))
    environ = _environ(REQUEST_METHOD="GET", PATH_INFO="/v1/files/f/content")
    answer: Any = app(environ, _start)
    next(answer)
    reached = fake.requests[0].chunks_sent
    for _ in range(20):  # turns of the loop in which it could read on
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop_thread().loop).result()
    assert fake.requests[0].chunks_sent <= reached + 8
    assert fake.requests[0].chunks_sent * 65536 < 2 << 20
    total = sum(map(len, answer))
    answer.close()
    assert total + 65536 == fake.download_bytes
    assert fake.requests[0].outcome == "complete"


def test_a_body_that_ends_early_is_a_leaving(fake: FakeUpstream) -> None:
    app = AIProxyWSGIMiddleware(proxy=_proxy(fake))
    with pytest.raises(ConnectionResetError):
        app(_environ(CONTENT_LENGTH="999"), _start)


@pytest.mark.parametrize("length", ["", "0", "x", "²"])
def test_without_a_length_there_is_no_body(fake: FakeUpstream, length: str) -> None:
    app = AIProxyWSGIMiddleware(proxy=_proxy(fake))
    environ = _environ(CONTENT_LENGTH=length, REQUEST_METHOD="GET", PATH_INFO="/v1/models")
    assert b"".join(app(environ, _start))
    assert fake.requests[0].body_size == 0


def test_a_fault_of_ours_while_sending_does_not_hold_the_worker(
    fake: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = _proxy(fake)

    class Broken:
        def chunk(self, data: bytes) -> None:
            raise RuntimeError("an observer is broken")

        def end(self, how: Any) -> None:
            pass

    inner = proxy.handle

    async def handle(request: Request) -> Any:
        response = await inner(request)
        response.observers.append(Broken())
        return response

    proxy.handle = handle
    app = AIProxyWSGIMiddleware(proxy=proxy)
    with pytest.raises(ConnectionResetError):
        app(_environ(REQUEST_METHOD="GET", PATH_INFO="/v1/models"), _start)
    assert "an observer is broken" in caplog.text


def test_a_process_that_ends_lets_its_workers_go(fake: FakeUpstream) -> None:
    app = AIProxyWSGIMiddleware(proxy=_proxy(fake))

    def end() -> None:
        for task in asyncio.all_tasks(loop_thread().loop):
            task.cancel()

    with fake.hold("headers") as gate, ThreadPoolExecutor() as pool:
        environ = _environ(REQUEST_METHOD="GET", PATH_INFO="/v1/models")
        call = pool.submit(app, environ, _start)
        gate.wait_until_held()
        loop_thread().loop.call_soon_threadsafe(end)
        with pytest.raises(ConnectionResetError):
            call.result(10)


@pytest.mark.parametrize("door", IN_PROCESS)
def test_a_hook_that_runs_out_of_items_is_a_500(fake: FakeUpstream, door: str) -> None:
    """StopIteration cannot be put into a future; it must not hang the call."""

    def hook(request: Request) -> str:
        return next(iter([]))

    with IN_PROCESS[door](_proxy(fake, anonymous=False, identify=hook)) as url:
        assert httpx.get(f"{url}/v1/models", timeout=10).status_code == 500


async def _waits_for_what_was_cancelled(request: Request) -> str:
    ended = asyncio.get_running_loop().create_future()
    ended.cancel()
    return str(await ended)


def _runs_what_was_cancelled(request: Request) -> str:
    raise asyncio.CancelledError


@pytest.mark.parametrize("hook", [_waits_for_what_was_cancelled, _runs_what_was_cancelled])
@pytest.mark.parametrize("door", IN_PROCESS)
def test_a_hook_that_meets_a_cancellation_is_a_500(
    fake: FakeUpstream, door: str, hook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """That of something else: the call goes on, and is not taken for one that was broken off."""
    with IN_PROCESS[door](_proxy(fake, anonymous=False, identify=hook)) as url:
        answer = httpx.get(f"{url}/v1/models", timeout=10)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert answer.headers["x-request-id"] in caplog.text
    assert fake.requests == []


class _NotAnException(BaseException):
    pass


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, _NotAnException])
def test_a_coroutine_hook_cannot_end_the_loop_either(
    fake: FakeUpstream, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def hook(request: Request) -> str:
        raise error

    environ = _environ(REQUEST_METHOD="GET", PATH_INFO="/v1/models")
    app = AIProxyWSGIMiddleware(proxy=_proxy(fake, anonymous=False, identify=hook))
    with pytest.raises(ConnectionResetError):
        app(environ, _start)
    assert error.__name__ in caplog.text
    assert b"".join(AIProxyWSGIMiddleware(proxy=_proxy(fake))(environ, _start))


def test_a_loop_that_has_ended_is_replaced(
    fake: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = LoopThread()
    ended.stop()
    monkeypatch.setattr(loop_module, "_current", ended)
    environ = _environ(REQUEST_METHOD="GET", PATH_INFO="/v1/models")
    assert b"".join(AIProxyWSGIMiddleware(proxy=_proxy(fake))(environ, _start))
    loop_thread().stop()


def test_under_gevent_the_loop_is_asyncios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkey = types.ModuleType("gevent.monkey")
    monkey.is_module_patched = lambda name: name == "threading"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    thread = LoopThread()
    assert type(thread.loop).__module__.startswith("asyncio")
    thread.stop()


def test_a_body_that_the_server_cannot_read_is_a_400(fake: FakeUpstream) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError("a bad chunk")

    statuses: list[str] = []
    app = AIProxyWSGIMiddleware(proxy=_proxy(fake))
    environ = _environ(**{"wsgi.input": Broken(), "CONTENT_LENGTH": "5"})
    answer = app(environ, lambda status, headers: statuses.append(status))
    assert b"cannot be read" in b"".join(answer)
    assert statuses == ["400 Bad Request"]


def test_a_cut_answer_is_not_whole_inside_which_other_middleware_stands(fake: FakeUpstream) -> None:
    """Starlette's BaseHTTPMiddleware would end it; added before the proxy it stands inside."""

    async def passing(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    with fake.serve() as upstream:
        app = FastAPI()
        app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
        app.add_middleware(AIProxyMiddleware, upstream=upstream.base_url, anonymous=True)
        with serve_asgi(app) as url:
            fake.disconnect(after="chunk:1")
            speech = {"model": "f", "voice": "alloy", "input": "a" * 4096}
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.post(f"{url}/v1/audio/speech", json=speech)


def test_a_hook_that_ends_its_worker_does_not_end_the_loop(
    fake: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """gunicorn stops a worker by raising SystemExit in its thread, wherever that is."""

    def hook(request: Request) -> str:
        raise SystemExit(1)

    app = AIProxyWSGIMiddleware(proxy=_proxy(fake, anonymous=False, identify=hook))
    environ = _environ(REQUEST_METHOD="GET", PATH_INFO="/v1/models")
    with pytest.raises(SystemExit):
        app(environ, _start)
    working = AIProxyWSGIMiddleware(proxy=_proxy(fake))
    assert b"".join(working(environ, _start))
    assert fake.calls_open == 0
    assert caplog.text == ""  # it is no fault of the hook's


def test_a_server_that_refuses_the_head_ends_the_call(fake: FakeUpstream) -> None:
    def start(status: str, headers: list[tuple[str, str]]) -> None:
        raise ValueError("a header that this server does not like")

    app = AIProxyWSGIMiddleware(proxy=_proxy(fake))
    with fake.hold(), pytest.raises(ValueError, match="does not like"):
        app(_environ(CONTENT_LENGTH=str(LENGTH)), start)
    fake.wait_for_disconnect()


def test_a_loop_thread_stops_cleanly(fake: FakeUpstream) -> None:
    thread = LoopThread()
    closed = threading.Event()

    async def close() -> None:
        closed.set()

    async def forever() -> None:
        await asyncio.Event().wait()

    thread.at_stop(fake, close)
    running = asyncio.run_coroutine_threadsafe(forever(), thread.loop)
    thread.stop()
    assert closed.is_set()
    assert running.cancelled()
    assert thread.loop.is_closed()
    thread.stop()  # again is harmless


def test_without_uvloop_asyncios_own_loop_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    thread = LoopThread()
    assert type(thread.loop).__module__.startswith("asyncio")
    thread.stop()


def _call_in_child(app: Any, results: Any) -> None:
    environ = _environ(REQUEST_METHOD="GET", PATH_INFO="/v1/models")
    results.put(len(b"".join(app(environ, _start))))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # 3.12 warns; that is the test
def test_a_forked_process_gets_a_loop_of_its_own(fake: FakeUpstream) -> None:
    with fake.serve() as upstream:
        app = AIProxyWSGIMiddleware(upstream=upstream.base_url, anonymous=True)
        environ = _environ(REQUEST_METHOD="GET", PATH_INFO="/v1/models")
        here = len(b"".join(app(environ, _start)))
        assert loop_module._current is not None
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        child = context.Process(target=_call_in_child, args=(app, results))
        child.start()
        assert results.get(timeout=10) == here
        child.join(10)
        assert child.exitcode == 0


def test_under_gunicorns_preload_each_worker_serves(fake: FakeUpstream) -> None:
    with fake.serve() as upstream:
        env = {"AI_PROXY_UPSTREAM": upstream.base_url, "AI_PROXY_ANONYMOUS": "1"}
        command = gunicorn("tests.apps.flask_app:app", "--preload", "-w", "2")
        with serve_process(command, env) as process:
            statuses = {httpx.get(f"{process.url}/v1/models").status_code for _ in range(10)}
            assert "Error" not in process.log
        assert statuses == {200}


def test_flask_keeps_its_own_errors(fake: FakeUpstream) -> None:
    app = Flask("own")
    app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, proxy=_proxy(fake))  # type: ignore[method-assign]
    with serve_wsgi(app) as url:
        assert "<title>404 Not Found</title>" in httpx.get(f"{url}/nowhere").text
