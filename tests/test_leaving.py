"""A caller that leaves ends the upstream call at once: tokens nobody reads are paid for."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from ai_proxy_mw.testing import SeenRequest
from tests.conftest import House
from tests.forms import CONTENT_TYPE, form_of

STREAM = b'{"model": "fake-1", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'
JSON = {"content-type": "application/json"}
PROMISED = 0.1


def _call(house: House) -> socket.socket:
    return _post(house, "chat/completions", "application/json", STREAM, len(STREAM))


def _post(house: House, path: str, content_type: str, body: bytes, length: int) -> socket.socket:
    address = urlsplit(house.url)
    assert address.hostname
    assert address.port
    sock = socket.create_connection((address.hostname, address.port), timeout=10)
    head = (
        f"POST /v1/{path} HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    )
    sock.sendall(head.encode() + body)
    return sock


def _leave(house: House, sock: socket.socket) -> tuple[float, SeenRequest]:
    left = time.monotonic()
    sock.close()
    seen = house.fake.wait_for_disconnect()
    assert seen.disconnected_at is not None
    return seen.disconnected_at - left, seen


def _fastest(times: list[float]) -> float:
    """The machine may be busy; the promise is kept if it is kept once in a few."""
    return min(times)


def test_before_the_first_byte(house: House) -> None:
    times = []
    for _ in range(4):
        house.fake.reset()
        with house.fake.hold("headers") as gate:
            sock = _call(house)
            gate.wait_until_held()
            took, seen = _leave(house, sock)
        times.append(took)
        assert seen.chunks_sent == 0
    assert _fastest(times) < PROMISED


def test_in_mid_stream(house: House) -> None:
    times = []
    for _ in range(4):
        house.fake.reset()
        with house.fake.hold() as gate:
            sock = _call(house)
            gate.wait_until_held()
            gate.release()
            received = b""
            while b"data: " not in received:
                received += sock.recv(4096)
            gate.wait_until_held()
            took, seen = _leave(house, sock)
        times.append(took)
        assert seen.chunks_sent == 1
    assert _fastest(times) < PROMISED


def test_in_mid_upload(house: House) -> None:
    """The rest of the body never comes; nothing of the call stays open."""
    whole = form_of(1 << 24, purpose="batch")
    sock = _post(house, "files", CONTENT_TYPE, whole[: 1 << 20], len(whole))
    deadline = time.monotonic() + 5
    while not house.fake.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    took, seen = _leave(house, sock)
    assert took < 1
    assert seen.body_size <= 1 << 20
    assert seen.outcome == "disconnected"


def test_an_answer_is_not_taken_for_a_leaving(house: House) -> None:
    """The same connection serves one call after another, quick ones and slow ones."""
    with httpx.Client(timeout=10) as client:
        for pace in (0.0, 0.05, 0.0, 0.05):
            house.fake.pace = pace
            answer = client.post(f"{house.v1}/chat/completions", content=STREAM, headers=JSON)
            assert answer.content.endswith(b"data: [DONE]\n\n")
    assert [seen.outcome for seen in house.fake.requests] == ["complete"] * 4


@pytest.mark.parametrize("fault", ["chunk:2", "headers"])
def test_an_answer_that_is_cut_is_never_ended_as_if_it_were_whole(house: House, fault: str) -> None:
    """A stream gets an error event between two events; the upstream's bytes are not repeated."""
    house.fake.disconnect(after=fault)
    sock = _call(house)
    received = b""
    while piece := sock.recv(65536):
        received += piece
        if received.endswith(b"\r\n0\r\n\r\n"):
            break
    sock.close()
    assert b'event: error\ndata: {"error":{' in received
    assert b"upstream_disconnected" in received
    assert b"[DONE]" not in received
    assert received.count(b"HTTP/1.1") == 1


def test_a_download_that_is_cut_closes_the_connection(house: House) -> None:
    house.fake.disconnect(after="chunk:3")
    address = urlsplit(house.url)
    assert address.hostname
    sock = socket.create_connection((address.hostname, address.port or 80), timeout=10)
    sock.sendall(f"GET /v1/files/f-1/content HTTP/1.1\r\nhost: {address.netloc}\r\n\r\n".encode())
    received = b""
    while piece := sock.recv(65536):
        received += piece
    sock.close()
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert f"content-length: {house.fake.download_bytes}".encode() in head.lower()
    assert 0 < len(body) < house.fake.download_bytes
