"""An answer that Django pulls, made of one that the ASGI door pushes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_proxy_mw._types import Message, Send

logger = logging.getLogger("ai_proxy_mw")

AHEAD = 8
"""Pieces that wait for Django before the upstream is waited with."""


class Pulled:
    """Runs a call as a task of its own, and gives what it sends piece by piece.

    `call` is an ASGI app but for the `send` that it still needs. An answer that it does not
    finish is not finished here.
    """

    def __init__(self, call: Callable[[Send], Coroutine[Any, Any, None]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(AHEAD)
        self._ended = False
        self._task = self._loop.create_task(self._run(call))

    async def _run(self, call: Callable[[Send], Coroutine[Any, Any, None]]) -> None:
        try:
            await call(self._send)
        except Exception:
            logger.exception("the answer could not be sent")  # nobody awaits this task
        finally:
            self._messages.put_nowait(None)

    async def _send(self, message: Message) -> None:
        await self._room.acquire()
        self._messages.put_nowait(message)

    async def head(self) -> Message:
        """The first message. Raises RuntimeError if the call ended without one."""
        message = await self._next()
        if message is None:
            raise RuntimeError("the call ended without an answer")
        return message

    def __aiter__(self) -> Pulled:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        message = await self._next()
        if message is None:
            # Django takes this for a caller that has left: it cleans up, sends no end of the
            # body, and the server closes the connection. Anything else it lets fall through.
            raise asyncio.CancelledError("the answer was broken off")
        self._ended = not message.get("more_body", False)
        body: bytes = message["body"]
        return body

    async def _next(self) -> Message | None:
        try:
            message = await self._messages.get()
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait((self._task,))  # before Django closes the body it may be reading
            raise
        self._room.release()
        return message

    def close(self) -> None:
        """End the call if it has not ended. Django calls this in another thread."""
        if not (self._task.done() or self._loop.is_closed()):
            self._loop.call_soon_threadsafe(self._task.cancel)
