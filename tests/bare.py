"""Sending servers exactly these bytes, as no client library would."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple
from urllib.parse import urlsplit

from ai_proxy_mw import AIProxy, AIProxyMiddleware
from tests.conftest import IN_PROCESS
from tests.servers import serve_asgi


def _h11(proxy: AIProxy) -> AbstractContextManager[str]:
    return serve_asgi(AIProxyMiddleware(proxy=proxy), http="h11")


DOORS: dict[str, Callable[[AIProxy], AbstractContextManager[str]]] = {
    **IN_PROCESS,
    "uvicorn-h11": _h11,
}
"""Both doors, and a server with another parser."""


class Got(NamedTuple):
    """An answer; `headers` are its lines with names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


def exchange(url: str, request: bytes, *, timeout: float = 10) -> Got:
    """The first answer to what is sent, read to its length.

    That to HEAD is read to the connection's end, which the request must ask for.
    """
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port), timeout) as sock:
        sock.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            piece = sock.recv(1 << 16)
            assert piece, received
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        parted = [line.partition(":") for line in lines]
        got = Got(int(first.split()[1]), [(k.lower(), v.strip()) for k, _, v in parted], b"")
        is_head = request.startswith(b"HEAD ")
        length = int(got.header("content-length") or 0)
        while (is_head or len(body) < length) and (piece := sock.recv(1 << 16)):
            body += piece
    return got._replace(body=body)
