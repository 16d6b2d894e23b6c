"""Hello world that reads the body and decodes it."""

from __future__ import annotations

import msgspec

from benchmarks.apps import floor
from benchmarks.sketch import App, Message, Receive, Send


def make(upstream: str) -> App:
    hello = floor.make(upstream)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        message = await receive()
        body: bytes = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        msgspec.json.decode(body)
        await hello(scope, receive, send)

    return app
