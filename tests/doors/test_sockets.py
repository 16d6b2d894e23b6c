"""Quiet upstreams, slow readers and leavers, over real sockets and through both doors."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import anthropic
import httpx
import openai
import pytest

from ai_proxy_mw import AIProxy, MemoryCache, Timeouts, Upstream
from ai_proxy_mw._http import Ending, Request
from ai_proxy_mw.testing import FakeUpstream
from tests.conftest import IN_PROCESS

STREAM = b'{"model": "fake-1", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'

DOORS = pytest.mark.parametrize("door", IN_PROCESS)


class Seen:
    """Watches every answer of a proxy."""

    def __init__(self, proxy: AIProxy) -> None:
        self.bytes = 0
        self.endings: list[Ending] = []
        self._inner = proxy.handle
        proxy.handle = self._handle

    async def _handle(self, request: Request) -> Any:
        response = await self._inner(request)
        response.observers.append(self)
        return response

    def chunk(self, data: bytes) -> None:
        self.bytes += len(data)

    def end(self, how: Ending) -> None:
        self.endings.append(how)


@contextmanager
def _served(door: str, fake: FakeUpstream, **options: Any) -> Iterator[tuple[str, Seen]]:
    write = options.pop("write", 30.0)
    with fake.serve() as upstream:
        proxy = AIProxy(
            upstream=Upstream(base_url=upstream.base_url, timeouts=Timeouts(write=write)),
            anonymous=True,
            **options,
        )
        seen = Seen(proxy)
        with IN_PROCESS[door](proxy) as url:
            yield url, seen


def _call(url: str, body: bytes = STREAM, path: str = "chat/completions") -> socket.socket:
    address = urlsplit(url)
    assert address.hostname
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.settimeout(10)
    sock.connect((address.hostname, address.port or 80))
    method = "POST" if body else "GET"
    sock.sendall(
        f"{method} /v1/{path} HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return sock


def _whole(url: str) -> bytes:
    headers = {"content-type": "application/json"}
    return httpx.post(f"{url}/v1/chat/completions", content=STREAM, headers=headers).content


def _until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@DOORS
def test_a_quiet_stream_is_kept_alive(fake: FakeUpstream, door: str) -> None:
    with _served(door, fake, keepalive=0.1) as (url, seen), fake.hold() as gate:
        sock = _call(url)
        gate.wait_until_held()
        received = b""
        while received.count(b": ping\n\n") < 2:
            received += sock.recv(4096)
        assert b"data: " not in received
        gate.open()
        while b"[DONE]" not in received:
            received += sock.recv(4096)
        sock.close()
        assert b"content-length" not in received.lower()
        direct = _whole(url)
        _until(lambda: len(seen.endings) == 2)
        assert seen.bytes == 2 * len(direct)


@DOORS
def test_the_head_is_not_made_up(fake: FakeUpstream, door: str) -> None:
    """Before the upstream has answered nobody knows what the status will be."""
    with _served(door, fake, keepalive=0.05) as (url, _), fake.hold("headers") as gate:
        sock = _call(url)
        gate.wait_until_held()
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.close()


@DOORS
def test_who_does_not_read_is_cut_off(door: str) -> None:
    fake = FakeUpstream(download_bytes=50 << 20)
    with _served(door, fake, write=0.3) as (url, seen):
        threads = threading.active_count()
        sock = _call(url, b"", "files/f/content")
        fake.wait_for_request()
        gone = fake.wait_for_disconnect()
        assert gone.chunks_sent * 65536 < 25 << 20  # what the kernel's buffers took, and ours
        received = 0
        try:
            while piece := sock.recv(65536):
                received += len(piece)
        except ConnectionResetError:
            pass
        sock.close()
        assert received < fake.download_bytes
        _until(lambda: seen.endings == [Ending.CANCELLED])
        # The worker is not left behind in its sending.
        _until(lambda: threading.active_count() <= threads)


@DOORS
@pytest.mark.parametrize("at", ["headers", "chunks"])
@pytest.mark.parametrize("cache", [False, True])
def test_a_leaver_is_drained(fake: FakeUpstream, door: str, at: Any, cache: bool) -> None:
    options: dict[str, Any] = {"cache": MemoryCache()} if cache else {}
    with (
        _served(door, fake, on_disconnect="drain", **options) as (url, seen),
        fake.hold(at) as gate,
    ):
        sock = _call(url)
        gate.wait_until_held()
        if at == "chunks":
            gate.release()
            while b"data: " not in sock.recv(4096):
                pass
            gate.wait_until_held()
        sock.close()
        time.sleep(0.2)  # it must not be noticed and then cancelled
        assert fake.calls_open == 1
        gate.open()
        _until(lambda: bool(seen.endings))
        assert seen.endings == [Ending.CANCELLED]
        assert fake.requests[0].outcome == "complete"
        whole = _whole(url)
        assert whole.endswith(b"data: [DONE]\n\n")
        _until(lambda: len(seen.endings) == 2)
        assert seen.bytes == 2 * len(whole)


@DOORS
def test_draining_ends(fake: FakeUpstream, door: str) -> None:
    with (
        _served(door, fake, on_disconnect="drain", drain_max=0.2) as (url, seen),
        fake.hold() as gate,
    ):
        sock = _call(url)
        gate.wait_until_held()
        sock.close()
        fake.wait_for_disconnect()
        _until(lambda: seen.endings == [Ending.CANCELLED])


@DOORS
def test_a_drained_download_is_held_nowhere(door: str) -> None:
    """Also where the door was waiting for a reader who was slow before he left."""
    fake = FakeUpstream(download_bytes=20 << 20)
    with _served(door, fake, on_disconnect="drain") as (url, seen):
        sock = _call(url, b"", "files/f/content")
        fake.wait_for_request()
        time.sleep(0.2)
        assert fake.calls_open == 1
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # resets
        sock.close()
        _until(lambda: seen.endings == [Ending.CANCELLED])
        assert seen.bytes == 20 << 20


# -- what the clients make of an error event -------------------------------------------------


@DOORS
def test_the_official_clients_take_an_error_event_for_an_error(
    fake: FakeUpstream, door: str
) -> None:
    hi: Any = [{"role": "user", "content": "Say one two three"}]
    with (
        _served(door, fake) as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as chat,
        anthropic.Anthropic(base_url=url, api_key="-", max_retries=0) as claude,
    ):
        fake.disconnect(after="chunk:2", times=3)
        with pytest.raises(openai.APIError, match="broke off"):
            list(chat.chat.completions.create(model="fake-1", messages=hi, stream=True))
        with pytest.raises(openai.APIError, match="broke off"):
            list(chat.responses.create(model="fake-1", input="Hi", stream=True))
        with pytest.raises(anthropic.APIStatusError, match="broke off"):
            list(claude.messages.create(model="fake-1", messages=hi, max_tokens=99, stream=True))


@DOORS
def test_the_official_clients_pass_over_comments(fake: FakeUpstream, door: str) -> None:
    hi: Any = [{"role": "user", "content": "Say one two three"}]
    fake.pace = 0.06
    with (
        _served(door, fake, keepalive=0.05) as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as chat,
        anthropic.Anthropic(base_url=url, api_key="-", max_retries=0) as claude,
    ):
        assert list(chat.chat.completions.create(model="fake-1", messages=hi, stream=True))
        events = claude.messages.create(model="fake-1", messages=hi, max_tokens=99, stream=True)
        assert [event.type for event in events][-1] == "message_stop"
