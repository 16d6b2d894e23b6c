"""A stream made by the application itself: what uvicorn costs per event."""

from __future__ import annotations

import asyncio
import itertools

import msgspec

from benchmarks.apps import floor
from benchmarks.payloads import DONE, EVENT
from benchmarks.sketch import App, Message, Receive, Send
from benchmarks.upstream import Ask, spread

_HEADERS = [(b"content-type", b"text/event-stream")]


def make(upstream: str) -> App:
    hello = floor.make(upstream)
    serial = itertools.count()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        message = await receive()
        ask = msgspec.json.decode(message["body"], type=Ask)
        if not ask.stream:
            await hello(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await asyncio.sleep(spread(next(serial), ask.bench.pace))
        for _ in range(ask.bench.chunks):
            await asyncio.sleep(ask.bench.pace)
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        await send({"type": "http.response.body", "body": DONE})

    return app
