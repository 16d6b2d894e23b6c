"""Hearing that a caller leaves before anybody reads what it sends.

An ASGI server tells of a leaving only behind the body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ai_proxy_mw._errors import ClientGone

MOST = 64 * 1024
"""Bytes that are taken ahead. Behind a longer body a leaving is heard only when it is read."""


class Ahead:
    """Takes what a caller sends until somebody wants it, calls `on_gone` if the caller leaves.

    arrived: whether that is all of the body. gone: whether the caller has left.
    """

    __slots__ = ("_on_gone", "_pull", "_task", "_wanted", "arrived", "gone")

    def __init__(
        self, pull: Callable[[], Awaitable[tuple[bytes, bool]]], on_gone: Callable[[], None]
    ) -> None:
        self._pull = pull
        self._on_gone = on_gone
        self._wanted = False
        self.arrived = False
        self.gone = False
        self._task: asyncio.Task[tuple[bytes, bool]] | None = asyncio.create_task(self._take())
        self._task.add_done_callback(self._done)

    async def pull(self) -> tuple[bytes, bool]:
        """What was taken as one piece, and then what follows; true with it if it is the last."""
        self._wanted = True
        task, self._task = self._task, None
        # Not cancelled and asked anew: not every server keeps what it was about to give.
        return await (self._pull() if task is None else task)

    def stop(self) -> None:
        """Nobody will want it."""
        if self._task is not None:
            self._task.cancel()

    async def _take(self) -> tuple[bytes, bool]:
        taken = bytearray()
        while not self.arrived and not (self._wanted and taken) and len(taken) < MOST:
            piece, self.arrived = await self._pull()
            taken += piece
        return bytes(taken), self.arrived

    def _done(self, task: asyncio.Task[tuple[bytes, bool]]) -> None:
        # What else went wrong is told to who reads.
        if not task.cancelled() and isinstance(task.exception(), ClientGone):
            self.gone = True
            self._on_gone()
