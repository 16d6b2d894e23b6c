"""Connections to the workers of one server, each known by the worker that has it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

WORKERS = 4


@dataclass
class Answer:
    """whole: whether it came to its end as HTTP has it. first, last: when, on the clock."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    first: float = 0.0
    last: float = 0.0

    @property
    def cache(self) -> str:
        return self.headers.get("x-cache", "")


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.worker = 0
        self.answer = Answer()

    async def find_worker(self) -> None:
        self._writer.write(b"GET /worker HTTP/1.1\r\nHost: app\r\n\r\n")
        self.worker = int((await self._read()).body)

    async def ask(self, question: dict[str, Any], user: str = "ada") -> Answer:
        body = json.dumps(question).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: app\r\nContent-Type: application/json\r\n"
            f"X-User: {user}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        return await self._read()

    def close(self) -> None:
        self._writer.transport.abort()

    async def _read(self) -> Answer:
        self.answer = answer = Answer()
        try:
            await self._read_into(answer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # it is not whole, then
        answer.last = time.monotonic()
        return answer

    async def _read_into(self, answer: Answer) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        answer.status = int(head[0].split()[1])
        for line in filter(None, head[1:]):
            name, _, value = line.partition(":")
            answer.headers[name.lower()] = value.strip()
        if "content-length" in answer.headers:
            answer.body = await self._reader.readexactly(int(answer.headers["content-length"]))
            answer.first = time.monotonic()
        else:
            await self._read_chunks(answer)
        answer.whole = True

    async def _read_chunks(self, answer: Answer) -> None:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            answer.body += (await self._reader.readexactly(size + 2))[:-2]
            answer.first = answer.first or time.monotonic()
        await self._reader.readexactly(2)


@asynccontextmanager
async def connections(url: str, number: int) -> AsyncIterator[list[Connection]]:
    """Some to each of the workers; a worker that starts late is waited for."""
    where = urlsplit(url)
    deadline = time.monotonic() + 30
    while True:
        opened = [await asyncio.open_connection(where.hostname, where.port) for _ in range(number)]
        found = [Connection(*each) for each in opened]
        await asyncio.gather(*(each.find_worker() for each in found))
        if len({each.worker for each in found}) == WORKERS:
            break
        for each in found:
            each.close()
        assert time.monotonic() < deadline, "not all workers take calls"
    try:
        yield found
    finally:
        for each in found:
            each.close()
