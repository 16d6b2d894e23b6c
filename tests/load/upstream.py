"""An upstream that fails as told and writes down each call that it was sent.

`POST /{name}/{plan}/chat/completions` is answered as the plan says; the call's `user` stands in the
log and in the answer, so that both can be laid beside what callers saw. `GET /log` gives the log
and how many connections are open. Runs as a process of its own: `--port N`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from typing import cast

import httptools
import msgspec

INPUT = 11
"""Tokens that each answer says it has read."""

LATE = 0.004
"""Seconds at most until an answer begins."""

_PACE = 0.001
_PIECES = 4
_SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_JSON = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_ERROR = b'{"error":{"message":"so sorry","type":"server_error","param":null,"code":null}}'

FAILURES = ("error", "reset", "half")
"""`error`: status 500, or a stream that begins with an error. `reset`: before the head. `half`:
behind the head, or a stream that ends with nothing said. And for hasty callers, whose answers may
be in pieces, `cut`: in the middle."""


class Ask(msgspec.Struct):
    """What is read of a call."""

    user: str
    stream: bool = False


class Entry(msgspec.Struct):
    """A call: what was done to it, and what its answer says it has used.

    fault: empty where it was answered. whole: whether all of the answer could be written.
    """

    name: str
    user: str
    stream: bool
    fault: str
    output: int
    whole: bool = False


class Log(msgspec.Struct):
    connections: int
    entries: list[Entry]


def output_of(user: str) -> int:
    """Tokens that the answer says it has made; not the same for all."""
    return 1 + sum(user.encode()) % 50


def text_of(user: str) -> str:
    return f"This is for {user}."


class House:
    """What the connections share."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.log = Log(0, [])

    def fault(self, plan: str, user: str) -> str:
        if plan in ("well", "stall", "error"):
            return "" if plan == "well" else plan
        number = self.draw.random()
        if number < 0.05:
            return self.draw.choice(("stall", "silence"))
        if number < 0.35:
            return self.draw.choice(FAILURES)
        return "cut" if user.startswith("hasty") and number < 0.4 else ""


class Connection(asyncio.Protocol):
    def __init__(self, house: House) -> None:
        self._house = house
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._house.log.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.log.connections -= 1
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        if self._url == b"/log":
            self._write(200, msgspec.json.encode(self._house.log))
            return
        _, name, plan, *_ = self._url.decode().split("/")
        ask = msgspec.json.decode(body, type=Ask)
        fault = self._house.fault(plan, ask.user)
        entry = Entry(name, ask.user, ask.stream, fault, output_of(ask.user))
        self._house.log.entries.append(entry)
        self._answering = asyncio.get_running_loop().create_task(self._answer(entry))

    def _write(self, status: int, body: bytes) -> None:
        self._transport.write(_JSON % (status, len(body), body))

    async def _answer(self, entry: Entry) -> None:
        await asyncio.sleep(self._house.draw.random() * LATE)
        if entry.fault == "reset":
            self._transport.abort()
        elif entry.fault == "stall":
            return
        elif entry.stream:
            await self._stream(entry)
        else:
            self._whole(entry)
        self._answering = None

    def _whole(self, entry: Entry) -> None:
        body = msgspec.json.encode(
            {
                **_frame(entry, "chat.completion"),
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text_of(entry.user)},
                        "finish_reason": "stop",
                    }
                ],
                "usage": _usage(entry),
            }
        )
        if entry.fault == "error":
            self._write(500, _ERROR)
        elif entry.fault in ("half", "silence", "cut"):
            head, _, rest = (_JSON % (200, len(body), body)).partition(b"\r\n\r\n")
            said = rest[:30] if entry.fault == "cut" else b""
            self._transport.write(head + b"\r\n\r\n" + said)
            if entry.fault != "silence":
                self._transport.close()
        else:
            self._write(200, body)
            entry.whole = True

    async def _stream(self, entry: Entry) -> None:
        self._transport.write(_SSE)
        if entry.fault == "silence":
            return
        if entry.fault in ("error", "half"):
            said = _event(_ERROR) if entry.fault == "error" else b""
            self._transport.write(said + _LAST)
            return
        words = text_of(entry.user)
        size = -(-len(words) // _PIECES)
        for start in range(0, len(words), size):
            delta = {"index": 0, "delta": {"content": words[start : start + size]}}
            self._send(entry, {"choices": [delta]})
            await asyncio.sleep(_PACE)
            if entry.fault == "cut":
                self._transport.abort()
                return
        self._send(entry, {"choices": [], "usage": _usage(entry)})
        self._transport.write(_event(b"[DONE]") + _LAST)
        entry.whole = True

    def _send(self, entry: Entry, rest: dict[str, object]) -> None:
        chunk = {**_frame(entry, "chat.completion.chunk"), **rest}
        self._transport.write(_event(msgspec.json.encode(chunk)))


_LAST = b"0\r\n\r\n"


def _event(data: bytes) -> bytes:
    event = b"data: %b\n\n" % data
    return b"%x\r\n%b\r\n" % (len(event), event)


def _frame(entry: Entry, kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "load-1"}


def _usage(entry: Entry) -> dict[str, int]:
    total = INPUT + entry.output
    return {
        "prompt_tokens": INPUT,
        "completion_tokens": entry.output,
        "total_tokens": total,
    }


async def _serve(port: int, seed: int) -> None:
    house = House(seed)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(house), "127.0.0.1", port, backlog=512)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    asyncio.run(_serve(chosen.port, chosen.seed))


if __name__ == "__main__":
    main()
