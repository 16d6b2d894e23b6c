"""Asks an ASGI app in process."""

from __future__ import annotations

import asyncio
from copy import copy
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ai_proxy_mw._subrequest_answer import MARK, Answer, Target, sent

if TYPE_CHECKING:
    from ai_proxy_mw._types import ASGIApp, Message, Scope

# What routers around us have found out about another path.
_OF_ROUTING = ("endpoint", "fastapi", "path_params", "route", "router")


async def ask_asgi(app: ASGIApp, scope: Scope, target: Target) -> Answer:
    """Call the app with a copy of the scope, in the caller's task.

    Raises RuntimeError if the app raises, or returns before its answer is whole.
    """
    exchange = _Exchange()
    try:
        await app(_sub_scope(scope, target), exchange.receive, exchange.send)
    except Exception as error:
        raise RuntimeError("the app has raised, asked who is calling") from error
    if exchange.answer is None or not exchange.ended.is_set():
        raise RuntimeError("the app has not answered, asked who is calling")
    return exchange.answer


def _sub_scope(scope: Scope, target: Target) -> dict[str, Any]:
    sub = {name: value for name, value in scope.items() if name not in _OF_ROUTING}
    root = _repeated_root(scope)
    sub |= {
        "method": "GET",
        "path": root + target.path.decode("utf-8", "replace"),
        "raw_path": quote(root).encode("ascii") + target.raw_path,
        "query_string": target.query,
        "headers": sent(scope["headers"]),
        MARK: True,
    }
    if "state" in scope:
        sub["state"] = copy(scope["state"])
    if scope.get("extensions"):
        # How to send, by what the server can do, is not for us.
        sub["extensions"] = {
            name: value
            for name, value in scope["extensions"].items()
            if not name.startswith("http.response.")
        }
    return sub


def _repeated_root(scope: Scope) -> str:
    """The place where the app is mounted, if paths repeat it, on which servers differ."""
    root: str = scope.get("root_path", "")
    path: str = scope["path"]
    repeats = path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/")
    return root if repeats else ""


class _Exchange:
    """The server's side of a call, whose client sends nothing and stays."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.ended = asyncio.Event()
        self._asked = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.ended.wait()
        return {"type": "http.disconnect"}  # as servers say when the answer has gone out

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)  # an app that never pauses could not be stopped, nor others go on
        if message["type"] == "http.response.start":
            self.answer = Answer(message["status"], list(message.get("headers", ())))
        elif message["type"] == "http.response.body" and self.answer is not None:
            self.answer.add(message.get("body", b""))
            if not message.get("more_body", False):
                self.ended.set()
