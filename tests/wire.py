"""Talking to the fake upstream by hand: over a bare socket, and over the Transport seam."""

from __future__ import annotations

import hashlib
import json
import socket
from typing import Any

from ai_proxy_mw._config import Timeouts
from ai_proxy_mw._http import Response
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.testing import FakeServer
from ai_proxy_mw.upstream.base import Origin, Outbound

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}
STREAM = {**CHAT, "stream": True}


def dial(server: FakeServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 5)


def raw(path: str = "/v1/chat/completions", body: Any = STREAM, *more: str) -> bytes:
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: fake", f"Content-Length: {len(content)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + content


def read_until(connection: socket.socket, end: bytes) -> bytes:
    got = b""
    while end not in got:
        piece = connection.recv(1 << 16)
        assert piece, got
        got += piece
    return got


def read_all(connection: socket.socket) -> bytes:
    got = b""
    while piece := connection.recv(1 << 16):
        got += piece
    return got


def outbound(
    body: bytes | RequestBody,
    *,
    path: str = "/v1/chat/completions",
    method: str = "POST",
    timeouts: Timeouts | None = None,
    headers: dict[str, str] | None = None,
) -> Outbound:
    return Outbound(
        method,
        Origin("http", "fake.invalid", 80),
        path.encode(),
        [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        body,
        timeouts or Timeouts(),
    )


async def collect(response: Response) -> bytes:
    return b"".join([piece async for piece in response.body])


def read_all_counted(connection: socket.socket) -> tuple[bytes, int, str]:
    """Head, size and hash of an answer, without holding it."""
    head, _, rest = read_until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")
    digest, size = hashlib.sha256(rest), len(rest)
    while piece := connection.recv(1 << 18):
        digest.update(piece)
        size += len(piece)
    return head, size, digest.hexdigest()
