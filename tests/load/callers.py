"""Callers: so many connections that each call again as soon as they have been answered."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

HOST = "127.0.0.1"

_LONGEST = 60.0
"""Seconds after which even who stays takes it that something hangs."""

_SHORTEST = 0.2
"""Seconds until the last of the hasty ones hangs up: about what answers take on a busy machine."""


class Ask(NamedTuple):
    """A call to make.

    user: who calls, `:` and a number. patience: seconds after which the caller hangs up. enough: as
    many bytes of a stream after which he does.
    """

    door: str
    user: str
    stream: bool
    patience: float | None = None
    enough: int | None = None

    @property
    def caller(self) -> str:
        return self.user.partition(":")[0]


class Answer(NamedTuple):
    """What came of it.

    seconds: from the request to its last byte. left: whether the caller has hung up. broken:
    whether the proxy has, before the end of the answer.
    """

    ask: Ask
    seconds: float
    status: int = 0
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""
    left: bool = False
    broken: bool = False

    @property
    def attempts(self) -> int:
        return int(self.headers.get("x-ai-proxy-attempts", 0))

    @property
    def code(self) -> str | None:
        """Of the error; of one that a stream has begun with, too."""
        error = json.loads(self.body.removeprefix(b"data: ")).get("error")
        return None if error is None else str(error["code"])

    @property
    def text(self) -> str:
        """What the model has said."""
        if not self.ask.stream:
            return str(json.loads(self.body)["choices"][0]["message"]["content"])
        events = [event.removeprefix(b"data: ") for event in self.body.split(b"\n\n") if event]
        assert events.pop() == b"[DONE]", self.body
        said = [json.loads(event)["choices"] for event in events]
        return "".join(choices[0]["delta"]["content"] for choices in said if choices)


class Line:
    """One connection, opened anew when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(self, ask: Ask) -> Answer:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(HOST, self._port)
        began = time.perf_counter()
        self._writer.write(_request(ask))
        try:
            async with asyncio.timeout(ask.patience or _LONGEST):
                status, headers = await self._head()
                body, left = await self._body(headers, ask.enough)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            self.hang_up()
            late = isinstance(error, TimeoutError)
            assert not late or ask.patience, f"no answer: {ask}"
            return Answer(ask, time.perf_counter() - began, left=late, broken=not late)
        if left or headers.get("connection") == "close":
            self.hang_up()
        return Answer(ask, time.perf_counter() - began, status, headers, body, left)

    def hang_up(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _head(self) -> tuple[int, dict[str, str]]:
        assert self._reader is not None
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = [line.partition(": ") for line in lines[1:] if line]
        return int(lines[0].split()[1]), {name.lower(): value for name, _, value in pairs}

    async def _body(self, headers: dict[str, str], enough: int | None) -> tuple[bytes, bool]:
        reader = self._reader
        assert reader is not None
        if "content-length" in headers:
            return await reader.readexactly(int(headers["content-length"])), False
        pieces: list[bytes] = []
        got = 0
        while True:
            size = int(await reader.readline(), 16)
            piece = (await reader.readexactly(size + 2))[:-2]
            if not piece:
                return b"".join(pieces), False
            pieces.append(piece)
            got += len(piece)
            if enough is not None and got >= enough:
                return b"".join(pieces), True


async def call_all(port: int, asks: Iterable[Ask], *, lines: int) -> list[Answer]:
    """All calls, so many at a time. An answer that is none by HTTP is raised."""
    answers: list[Answer] = []
    waiting = iter(asks)
    async with asyncio.TaskGroup() as group:
        for _ in range(lines):
            group.create_task(_call_on(Line(port), waiting, answers))
    return answers


async def _call_on(line: Line, waiting: Iterator[Ask], answers: list[Answer]) -> None:
    try:
        for ask in waiting:
            answers.append(await line.call(ask))  # noqa: PERF401 - others append to it, too
    finally:
        line.hang_up()


async def look(port: int, path: str) -> Any:
    """The JSON of a page."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    body = await reader.readexactly(size)
    writer.close()
    return json.loads(body)


def calls(door: str, who: str, count: int, *, first: int = 0) -> list[Ask]:
    """Calls of which every other one asks for a stream."""
    return [Ask(door, f"{who}:{number}", number % 2 == 1) for number in range(first, first + count)]


def hasty(asks: Iterable[Ask], draw: random.Random, *, share: float) -> list[Ask]:
    """Some of them hang up: while they wait, or in the middle of a stream."""
    return [_hasty(ask, draw) if draw.random() < share else ask for ask in asks]


def _hasty(ask: Ask, draw: random.Random) -> Ask:
    if ask.stream and draw.random() < 0.5:
        return ask._replace(enough=draw.randrange(1, 600))
    return ask._replace(patience=0.001 + draw.random() * _SHORTEST)


def _request(ask: Ask) -> bytes:
    say: dict[str, object] = {
        "model": "load-1",
        "messages": [{"role": "user", "content": "Hi"}],
        "user": ask.user,
    }
    if ask.stream:
        say |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(say).encode()
    head = (
        f"POST /{ask.door}/v1/chat/completions HTTP/1.1\r\nhost: {HOST}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-caller: {ask.caller}\r\n\r\n"
    )
    return head.encode() + body


def percentile(answers: Iterable[Answer], share: float) -> float:
    """Milliseconds that so many percent of the answers have not taken."""
    found = sorted(answer.seconds for answer in answers)
    return found[min(len(found) - 1, int(len(found) * share / 100))] * 1000
