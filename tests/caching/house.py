"""A proxy with a cache, in process, in front of an upstream that is moved by hand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from ai_proxy_mw import AIProxy, Cache, MemoryCache, Request, Response, Upstream
from ai_proxy_mw._delivery import deliver
from ai_proxy_mw._hook_threads import run_sync
from ai_proxy_mw._http import Body
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw._types import RawHeaders
from ai_proxy_mw.testing import FAKE_BASE_URL
from ai_proxy_mw.upstream.base import Outbound

CHAT = "/chat/completions"
JSON: RawHeaders = [(b"content-type", b"application/json")]
STREAM: RawHeaders = [(b"content-type", b"text/event-stream")]
USAGE = b'{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}'
ANSWER = b'{"id":"a","choices":[{}],"usage":%b}' % USAGE
EVENTS = [b'data: {"n":1}\n\n', b'data: {"n":2}\n\n', b"data: [DONE]\n\n"]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Hand(Body):
    """A body whose pieces are put in by hand; None is its end, an exception breaks it off."""

    def __init__(self, *pieces: bytes | BaseException | None, announced: bool = False) -> None:
        self._pieces = deque(pieces)
        self._announced = announced
        self._there = asyncio.Event()
        self.taken = 0
        self.closed = 0

    def put(self, *pieces: bytes | BaseException | None) -> None:
        self._pieces.extend(pieces)
        self._there.set()

    @property
    def ended(self) -> bool:
        return self._announced and bool(self._pieces) and self._pieces[0] is None

    async def __anext__(self) -> bytes:
        while not self._pieces:
            self._there.clear()
            await self._there.wait()
        piece = self._pieces.popleft()
        if piece is None:
            raise StopAsyncIteration
        if isinstance(piece, BaseException):
            try:
                raise piece
            finally:
                del piece  # a circle with this frame would keep the flight
        self.taken += 1
        return piece

    async def aclose(self) -> None:
        self.closed += 1


Answer = Callable[[Outbound], Awaitable[Response]]


class Scripted:
    """A transport that answers as the test says: the n-th call the n-th answer, then the last."""

    def __init__(self, *answers: Answer | Response | BaseException) -> None:
        self.answers = list(answers) or [whole()]
        self.calls: list[Outbound] = []

    async def send(self, outbound: Outbound) -> Response:
        answer = self.answers[min(len(self.calls), len(self.answers) - 1)]
        self.calls.append(outbound)
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Response) else await answer(outbound)

    async def aclose(self) -> None:
        """There is nothing to close."""


def whole(body: bytes = ANSWER, status: int = 200, headers: RawHeaders = JSON) -> Answer:
    async def answer(outbound: Outbound) -> Response:
        return Response(status, [*headers], b"" if outbound.method == "HEAD" else body)

    return answer


def streamed(*pieces: bytes | BaseException | None) -> Answer:
    async def answer(outbound: Outbound) -> Response:
        return Response(200, [*STREAM], Hand(*(pieces or EVENTS), None))

    return answer


class House(NamedTuple):
    proxy: AIProxy
    upstream: Scripted
    clock: Clock


def house(*answers: Answer | Response | BaseException, options: Any = None, **cache: Any) -> House:
    """`cache` are options of Cache, `options` those of AIProxy."""
    clock, upstream = Clock(), Scripted(*answers)
    store = cache.pop("store", None) or MemoryCache(clock=clock)
    proxy = AIProxy(
        upstream=Upstream(base_url=FAKE_BASE_URL, transport=upstream),
        cache=Cache(store, **cache),
        **{"identify": _who, **(options or {})},
    )
    assert proxy._answers is not None
    proxy._answers.clock = clock
    return House(proxy, upstream, clock)


async def _who(request: Request) -> str | None:
    return request.headers.get("x-user")


def question(text: str = "Hi", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "fake-1", "max_tokens": 50, "messages": messages, **more}


def request(
    body: dict[str, Any] | None = None,
    *,
    user: str = "alice",
    method: str = "POST",
    path: str = CHAT,
    headers: dict[str, str] | None = None,
) -> Request:
    content = msgspec.json.encode(body or question()) if method == "POST" else b""

    async def pull() -> tuple[bytes, bool]:
        return content, True

    lines = {"content-type": "application/json", "x-user": user, **(headers or {})}
    return Request(
        method=method,
        path=path,
        query=b"",
        headers=[(name.encode(), value.encode()) for name, value in lines.items()],
        body=RequestBody(pull, declared=len(content), limit=10**8, empty=not content),
        client="1.2.3.4",
        request_id="r",
        run_sync=run_sync,
    )


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    pieces: list[bytes]

    @property
    def cached(self) -> str | None:
        return self.headers.get("x-cache")


async def hear(response: Response) -> Got:
    """All of a response, sent as a door sends it."""
    pieces: list[bytes] = []

    async def start(response: Response) -> None:
        """The head is looked at below."""

    async def write(piece: bytes, last: bool) -> None:
        if piece:
            pieces.append(piece)

    await deliver(response, start, write)
    headers = {name.decode(): value.decode("latin-1") for name, value in response.headers}
    return Got(response.status, headers, b"".join(pieces), pieces)


async def ask(proxy: AIProxy, body: dict[str, Any] | None = None, **more: Any) -> Got:
    return await hear(await proxy.handle(request(body, **more)))


async def get(proxy: AIProxy, **more: Any) -> Got:
    return await ask(proxy, **{"method": "GET", "path": "/models", **more})


async def settle(rounds: int = 20) -> None:
    """Let the loop do all that it can do at once."""
    for _ in range(rounds):
        await asyncio.sleep(0)
