"""A server that is told to stop: what is under way gets its time, and nothing hangs."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from ai_proxy_mw.testing import FakeUpstream
from tests.servers import Process, gunicorn, serve_process, uvicorn_command

STREAM = b'{"model": "fake-1", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'
PLAIN = b'{"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}'

DRAIN = 1.0
MARGIN = 3.0

ASGI = "tests.apps.stopping:asgi_app"
WSGI = "tests.apps.stopping:wsgi_app"


Command = Callable[[int], list[str]]


def _hypercorn(*options: str) -> Command:
    return lambda port: ["hypercorn", "-b", f"127.0.0.1:{port}", *options, ASGI]


SERVERS: dict[str, Command] = {
    "uvicorn": uvicorn_command(ASGI),
    "uvicorn-asyncio": uvicorn_command(ASGI, "--loop", "asyncio", "--http", "h11"),
    "uvicorn-workers": uvicorn_command(ASGI, "--workers", "2"),
    "hypercorn": _hypercorn("-w", "0"),
    "hypercorn-uvloop": _hypercorn("-w", "0", "-k", "uvloop"),
    "gunicorn-sync": gunicorn(WSGI, "-k", "sync", "-w", "1"),
    "gunicorn-gthread": gunicorn(WSGI, "-k", "gthread", "-w", "1", "--threads", "4"),
    "gunicorn-uvicorn": gunicorn(ASGI, "-k", "uvicorn.workers.UvicornWorker", "-w", "1"),
    "gunicorn-preload": gunicorn(
        WSGI,
        "--preload",
        "-k",
        "gthread",
        "-w",
        "1",
        "--threads",
        "4",
        "-c",
        "python:tests.apps.stopping_hooks",
    ),
}


@contextmanager
def _served(command: Command) -> Iterator[tuple[FakeUpstream, Process]]:
    fake = FakeUpstream()
    with fake.serve() as upstream:
        env = {"STOPPING_UPSTREAM": upstream.base_url}
        with serve_process(command, env) as process:
            yield fake, process
            process.process.wait(15)


def _post(process: Process, body: bytes) -> socket.socket:
    address = urlsplit(process.url)
    assert address.hostname
    sock = socket.create_connection((address.hostname, address.port or 80), timeout=20)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    sock.sendall(head.encode() + body)
    return sock


def _rest(sock: socket.socket, received: bytes = b"") -> bytes:
    with sock:
        while piece := sock.recv(65536):
            received += piece
    return received


def _until_data(sock: socket.socket) -> bytes:
    received = b""
    while b"data: " not in received:
        received += sock.recv(4096)
    return received


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_in_mid_stream(server: str) -> None:
    with _served(SERVERS[server]) as (fake, process), fake.hold() as gate:
        sock = _post(process, STREAM)
        gate.wait_until_held()
        gate.release()
        received = _until_data(sock)
        told = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        received = _rest(sock, received)
        ended = time.monotonic() - told
        process.process.wait(15)
        took = time.monotonic() - told
        assert b'event: error\ndata: {"error":{"message":"The service is stopping."' in received
        assert b'"code":"unavailable"' in received
        assert b"[DONE]" not in received
        assert received.endswith(b"\r\n0\r\n\r\n")
        assert DRAIN - 0.1 < ended < DRAIN + MARGIN
        assert took < DRAIN + MARGIN, process.log
        assert "Traceback" not in process.log


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_before_the_head(server: str) -> None:
    with _served(SERVERS[server]) as (fake, process), fake.hold("headers") as gate:
        sock = _post(process, STREAM)
        gate.wait_until_held()
        told = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        received = _rest(sock)
        process.process.wait(15)
        took = time.monotonic() - told
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in head.lower()
        if SERVERS[server](0)[-1] == ASGI:
            assert b"connection: close" in head.lower()
        assert b'"code":"unavailable"' in body
        assert took < DRAIN + MARGIN, process.log
        assert "Traceback" not in process.log


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_a_short_call_comes_to_its_end(server: str) -> None:
    with _served(SERVERS[server]) as (fake, process), fake.hold() as gate:
        sock = _post(process, STREAM)
        gate.wait_until_held()
        process.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)  # the signal has to get there first
        gate.release(1000)
        received = _rest(sock)
        assert b"data: [DONE]\n\n" in received
        assert b"event: error" not in received
        process.process.wait(15)
        assert fake.requests[0].outcome == "complete"


@pytest.mark.slow
def test_hypercorns_own_workers_do_not_hang_either() -> None:
    """The signal does not reach them: it is the server that cuts the call."""
    command = _hypercorn("-w", "1", "--graceful-timeout", "1")
    with _served(command) as (fake, process), fake.hold() as gate:
        sock = _post(process, STREAM)
        gate.wait_until_held()
        gate.release()
        received = _until_data(sock)
        told = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        received = _rest(sock, received)
        process.process.wait(15)
        assert time.monotonic() - told < 1 + MARGIN, process.log
        assert b"[DONE]" not in received
        assert not received.endswith(b"\r\n0\r\n\r\n")
        fake.wait_for_disconnect()
