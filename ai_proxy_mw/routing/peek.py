"""Looks at the beginning of a stream, while nothing of it has left the house."""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, Any, NamedTuple

from ai_proxy_mw._errors import UpstreamDisconnected
from ai_proxy_mw._http import Body
from ai_proxy_mw._sse import EventParser
from ai_proxy_mw.routing.first_event import CONTENT, PRELUDE, verdict

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from ai_proxy_mw._http import Response
    from ai_proxy_mw._sse import Event

MOST = 64 * 1024


class Beginning(enum.Enum):
    """How a stream begins."""

    CONTENT = "content"
    ERROR = "error"
    EMPTY = "empty"  # it has ended, and nothing was said
    UNDECIDED = "undecided"  # time or bytes were over


class Peeked(NamedTuple):
    """What the beginning of a stream tells.

    status: which HTTP status an error stands for, else 0.
    told: the data of the event that told of the error, as the provider wrote it.
    """

    beginning: Beginning
    status: int = 0
    told: bytes = b""

    @property
    def failed(self) -> bool:
        """Whether the call has failed, and may be asked of another upstream."""
        return self.beginning in (Beginning.ERROR, Beginning.EMPTY)


_CONTENT = Peeked(Beginning.CONTENT)
_UNDECIDED = Peeked(Beginning.UNDECIDED)


async def peek(response: Response, endpoint: str, *, seconds: float, most: int = MOST) -> Peeked:
    """Read an event stream until it says something, has failed or ended, or patience is over.

    seconds: how long. most: how many bytes are looked at. Whatever comes of it, `response.body`
    then gives all of the stream, from its start. Raises the UpstreamError that reading raises;
    after that, or when this is cancelled, the response is to be closed as always.
    """
    held = Held(response.body)
    response.body = held
    return await held.begin(endpoint, seconds, most)


class Held(Body):
    """A body whose beginning was read ahead, or is still being read.

    A task reads it, for not every body can be cancelled while it waits without losing a piece
    or breaking off: when time is over, the task brings the next piece and no more.
    """

    __slots__ = ("_body", "_hurry", "_look", "_pieces")

    def __init__(self, body: Body) -> None:
        self._body = body
        self._pieces: list[bytes] = []
        self._look: asyncio.Task[Peeked] | None = None
        self._hurry = False

    async def begin(self, endpoint: str, seconds: float, most: int) -> Peeked:
        look = asyncio.get_running_loop().create_task(self._read(endpoint, most))
        look.add_done_callback(_fetch_error)
        self._look = look
        try:
            await asyncio.wait((look,), timeout=seconds)
        finally:
            self._hurry = True
        return look.result() if look.done() else _UNDECIDED

    async def _read(self, endpoint: str, most: int) -> Peeked:
        parser = EventParser(max_event=most)
        async for piece in self._body:
            self._pieces.append(piece)
            told = _told(parser.feed(piece[:most]), endpoint)
            most -= len(piece)
            if told is not None:
                return told
            if most <= 0 or self._hurry:
                return _UNDECIDED
        # Some end without the blank line, and some readers take the last event all the same.
        return _told(parser.feed(b"\n\n"), endpoint) or Peeked(Beginning.EMPTY)

    @property
    def ended(self) -> bool:
        if self._look is None:
            return self._body.ended
        return not self._pieces and self._read_well() and self._body.ended

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        # Not a coroutine of its own: that would be one more frame to wake for every piece.
        return self._body.__anext__() if self._look is None else self._first()

    async def ready(self) -> None:
        if not self._pieces:
            await self._read_on()

    async def aclose(self) -> None:
        self._pieces.clear()
        look, self._look = self._look, None
        try:
            if look is not None and look.cancel():
                await asyncio.wait((look,))
        finally:
            await self._body.aclose()

    async def _first(self) -> bytes:
        if not self._pieces:
            await self._read_on()
        pieces, self._pieces = self._pieces, []
        if self._read_well():
            self._look = None
        return b"".join(pieces) if pieces else await self._body.__anext__()

    async def _read_on(self) -> None:
        """Wait for what the task brings, and then for the body itself."""
        look = self._look
        if look is not None:
            await asyncio.wait((look,))
            if look.cancelled():
                raise UpstreamDisconnected  # it was closed meanwhile
            if self._pieces:
                return
            look.result()  # raises what reading has raised
        await self._body.ready()

    def _read_well(self) -> bool:
        """Whether the task is done, so that the body itself says what follows."""
        look = self._look
        return look is None or (look.done() and not look.cancelled() and not look.exception())


def _told(events: Iterable[Event], endpoint: str) -> Peeked | None:
    """What the first event says that says something."""
    for event in events:
        said = verdict(event, endpoint)
        if said is CONTENT:
            return _CONTENT
        if said is not PRELUDE:
            return Peeked(Beginning.ERROR, said.status, event.data)
    return None


def _fetch_error(look: asyncio.Task[Peeked]) -> None:
    """Else asyncio would report an error that nobody waits for any more."""
    if not look.cancelled():
        look.exception()
