"""Hello world: what uvicorn itself costs. The body is not read."""

from __future__ import annotations

from benchmarks.payloads import ANSWER
from benchmarks.sketch import App, Message, Receive, Send

_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(ANSWER)).encode("ascii")),
]


def make(upstream: str) -> App:  # noqa: ARG001 - every row is made from the upstream's address
    async def app(scope: Message, receive: Receive, send: Send) -> None:  # noqa: ARG001
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": ANSWER})

    return app
