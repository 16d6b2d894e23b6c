"""What the tests of the fetcher share: names that lead where the test says, and a picture."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import pytest

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw._media import Images
from ai_proxy_mw.fetching.addresses import IPAddress
from ai_proxy_mw.fetching.fetcher import Fetcher

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
GIF = b"GIF89a" + bytes(100)
HOST = "cdn.example.com"
_NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the system's takes its time
TYPE = b"Content-Type: image/png"


def judge(data: bytes) -> str:
    """Stands for the one who knows formats."""
    for magic, name in ((b"\x89PNG", "png"), (b"GIF8", "gif")):
        if data.startswith(magic):
            return name
    raise InvalidRequest("This is no picture.", code="unsupported_image_format")


def on_loopback(address: IPAddress) -> bool:
    return str(address) == "127.0.0.1"


class Names:
    """Answers for each host in turn; the last one is repeated. Remembers who was looked up."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers) or [["127.0.0.1"]]
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def images(**policy: Any) -> Images:
    """Plain http from the hosts of the tests, whose servers listen on any port."""
    defaults: dict[str, Any] = {
        "allow_http": True,
        "allow_hosts": [HOST, "*.example.com", "127.0.0.1", "[::1]"],
        "timeout": 5,
    }
    return Images(urls="inline", **{**defaults, **policy})


@asynccontextmanager
async def fetching(
    resolve: Any = None,
    *,
    is_allowed: Any = on_loopback,
    clock: Any = None,
    trust: Any = None,
    **policy: Any,
) -> AsyncIterator[Fetcher]:
    options = {} if clock is None else {"clock": clock}
    fetcher = Fetcher(
        images(**policy),
        judge=judge,
        resolve=resolve or Names(),
        is_allowed=is_allowed,
        trust=trust or _NO_TRUST,
        **options,
    )
    try:
        yield fetcher
    finally:
        await fetcher.aclose()


@contextmanager
def refused(code: str) -> Any:
    with pytest.raises(InvalidRequest) as caught:
        yield caught
    assert caught.value.code == code, caught.value
    assert caught.value.status == 400


class Silent:
    """Listens, on IPv4 and IPv6 loopback, on one port; nobody may come."""

    def __enter__(self) -> Self:
        self._sockets = [_listen("127.0.0.1", 0)]
        self.port: int = self._sockets[0].getsockname()[1]
        try:
            self._sockets.append(_listen("::1", self.port))
        except OSError:
            pass  # a machine without IPv6 connects to nothing there either
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            assert not self.heard()
        finally:
            for sock in self._sockets:
                sock.close()

    def heard(self) -> bool:
        """Whether somebody has connected; the kernel queues connections before `accept`."""
        return any(_was_called(sock) for sock in self._sockets)


def _listen(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setblocking(False)
    try:
        sock.bind((host, port))
        sock.listen(64)
    except OSError:
        sock.close()
        raise
    return sock


def _was_called(sock: socket.socket) -> bool:
    try:
        sock.accept()[0].close()
    except BlockingIOError:
        return False
    return True


class WatchedLoop(asyncio.SelectorEventLoop):
    """Remembers what the event loop itself was asked to look up or to connect to."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_up: list[Any] = []
        self.connected: list[Any] = []

    async def getaddrinfo(self, host: Any, port: Any, **rest: Any) -> Any:
        self.looked_up.append(host)
        return await super().getaddrinfo(host, port, **rest)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.connected.append(address)
        await super().sock_connect(sock, address)
