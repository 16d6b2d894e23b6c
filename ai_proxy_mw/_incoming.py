"""The caller's body on its way in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ai_proxy_mw._ahead import Ahead
from ai_proxy_mw._errors import PayloadTooLarge, RequestTimeout
from ai_proxy_mw._http import Body

Pull = Callable[[], Awaitable[tuple[bytes, bool]]]
"""Waits for a piece of the caller's body; true with it if that was the last."""


class Watcher(Protocol):
    """Judges a body as it passes. What either method raises comes out of whoever reads it."""

    def feed(self, data: bytes) -> None: ...

    def finish(self) -> None:
        """All of it has been fed. May be called again."""


class RequestBody(Body):
    """The caller's body as it arrives, counted against a cap and a patience.

    `declared` is its Content-Length, or None; `limit` the most bytes taken; `patience` the seconds
    that each further piece may take, by the watch of whoever calls `check`. Reading it raises
    PayloadTooLarge, RequestTimeout and ClientGone. `waited` says how many seconds that has taken.
    """

    __slots__ = (
        "_ahead",
        "_ended",
        "_expired",
        "_first",
        "_pull",
        "_reader",
        "_since",
        "_watcher",
        "_whole",
        "declared",
        "limit",
        "patience",
        "received",
        "waited",
    )

    def __init__(
        self,
        pull: Pull,
        declared: int | None,
        limit: int,
        patience: float = float("inf"),
        empty: bool = False,
    ) -> None:
        self._pull = pull
        self._ahead: Ahead | None = None
        self._first: bytes | None = None
        self._ended = empty
        self._expired = False
        self._reader: asyncio.Task[Any] | None = None
        self._since = 0.0
        self._watcher: Watcher | None = None
        self._whole: bytes | None = None
        self.declared = declared
        self.limit = limit
        self.patience = patience
        self.received = 0
        self.waited = 0.0

    @property
    def ended(self) -> bool:
        return self._ended and self._first is None

    @property
    def arrived(self) -> bool:
        """Whether the caller has sent all of it, read by somebody or not."""
        return self._ended or (self._ahead is not None and self._ahead.arrived)

    @property
    def untouched(self) -> bool:
        """Whether nothing of it has been handed on."""
        return self._first is not None or self.received == 0

    def check(self, now: float) -> None:
        """End the waiting for a piece that has not come in time."""
        if self._reader is not None and now - self._since > self.patience:
            self._expired = True
            self._reader.cancel()

    def take_ahead(self, on_gone: Callable[[], None]) -> Ahead:
        """Begin to take it though nobody reads it yet; `on_gone` is called if the caller leaves.

        Who reads gets the same pieces, or several as one. Call it before anything is read.
        """
        ahead = self._ahead = Ahead(self._pull, on_gone)
        self._pull = ahead.pull
        return ahead

    def watch(self, watcher: Watcher) -> None:
        """Show each piece to `watcher` before it is handed on. Call it before anything is read.

        The piece that completes the body is handed on only after `finish`, so that what is wrong
        with the end, too, keeps the upstream from ever having the whole of it. No piece waits.
        """
        self._watcher = watcher
        if self._ended:
            watcher.finish()

    async def whole(self) -> bytes | None:
        """Wait for the first piece: all of the body if that was it, else None.

        After None, iterating still gives that piece first. Calls come whole almost always;
        this tells them from uploads without holding an upload.
        """
        if self._whole is not None:
            return self._whole
        if self._ended:
            return b""
        first = await self._next()
        if self._ended or self.arrived:
            return first
        self._first = first
        return None

    async def read(self) -> bytes:
        """All of the body. Kept, so that `whole` gives it too; iterating then gives nothing."""
        if self._whole is None:
            self._whole = await self.whole()
        if self._whole is None:
            self._whole = b"".join([piece async for piece in self])
        return self._whole

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._ended:
            raise StopAsyncIteration
        chunk = await self._next()
        if not chunk:
            raise StopAsyncIteration  # the end came alone
        return chunk

    async def aclose(self) -> None:
        self._first = None
        self._ended = True

    async def _next(self) -> bytes:
        """The next piece; empty only if the end came alone."""
        if self.declared is not None and self.declared > self.limit:
            raise PayloadTooLarge(self.limit)
        task = self._reader = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        clock = task.get_loop().time
        self._since = clock()
        chunk = b""
        try:
            while not chunk and not self._ended:
                chunk, self._ended = await self._pull()
        except asyncio.CancelledError:
            if self._expired and task.uncancel() <= cancelling:
                raise RequestTimeout from None
            raise
        finally:
            self._reader = None
            self.waited += clock() - self._since
        self.received += len(chunk)
        if self.received > self.limit:
            raise PayloadTooLarge(self.limit)
        if self._watcher is not None:
            self._show(self._watcher, chunk)
        return chunk

    def _show(self, watcher: Watcher, chunk: bytes) -> None:
        watcher.feed(chunk)
        # With a declared length its last byte completes the body for the upstream; without one
        # the end mark does, which is sent only after the end has been read here.
        if self._ended or self.received == self.declared:
            watcher.finish()
