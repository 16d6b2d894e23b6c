"""One call upstream that many callers listen to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ai_proxy_mw._errors import ClientGone, ProxyError, UpstreamDisconnected, UpstreamError
from ai_proxy_mw._http import Body, Ending

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.accounting.note import Note

logger = logging.getLogger("ai_proxy_mw")

WINDOW = 256 * 1024
"""Bytes that an answer which is too large to be held may be ahead of its slowest listener."""

GRACE = 5.0
"""Seconds that a slow listener may then hold up the others, before he is cut off."""


class HandedOver(Exception):
    """Who made the call was refused for a reason of his own: another has to make it anew."""


class Head(NamedTuple):
    """The head of an answer; each listener makes a response of his own of it."""

    status: int
    headers: RawHeaders
    event_stream: bool


Source = Callable[[], Awaitable["Response"]]
"""Brings the answer. Called once."""


class Flight:
    """Holds an answer while it comes, and gives each listener all of it, at his own pace.

    It runs in a task of its own, so that whoever has begun it can leave. When nobody listens any
    more that task is cancelled, and with it the call upstream, unless it goes on `alone`.

    most: bytes that are held, for those who come later and for the cache. Of a larger answer the
        beginning is let go, and from then on the upstream waits for the slowest listener.
    """

    def __init__(self, most: int, alone: bool = False) -> None:
        self.alone = alone
        self.head: Head | None = None
        self.aside: Sequence[bytes] = ()
        """What was taken out of the answer's stream, as of a Response."""
        self.pieces: list[bytes] = []
        self.times: list[int] = []
        """When each piece came, in milliseconds after the first."""
        self.ended = False
        self.too_large = False
        self.given_up = False
        """Whether it was cancelled since nobody listened."""
        self.second_hand = False
        """Whether it was another process that has asked upstream."""
        self.first = False
        """Whether nothing was kept when it began: there is nothing to be found until it ends."""
        self.error: BaseException | None = None
        self.note: Note | None = None
        """What it costs is written there."""
        self.task: asyncio.Task[None] | None = None
        self._most = most
        self._gone = 0  # pieces that have been let go
        self._held = 0  # bytes of those that have not
        self._first_at = 0.0
        self._listeners: dict[Listener, None] = {}  # in the order in which they came
        self._room: asyncio.Future[None] | None = None

    @property
    def can_be_joined(self) -> bool:
        """Whether who comes now may hear all of it."""
        return not self.too_large and not self.given_up and self.error is None

    @property
    def count(self) -> int:
        """How many pieces have come."""
        return self._gone + len(self.pieces)

    def piece(self, number: int) -> bytes:
        return self.pieces[number - self._gone]

    def listen(self, *, began: bool = False) -> Listener:
        """Hear the answer from its beginning; `began` says whether it is he who began the flight.

        Not for an answer that is too large: its beginning may be gone.
        """
        listener = Listener(self, began)
        self._listeners[listener] = None
        return listener

    def take_note(self, note: Note, alone: Request | None) -> None:
        """Have the note wait until all that this costs is known.

        alone: the request, where nobody else will say that it is over.
        """
        assert self.task is not None
        self.note = note
        note.holds()

        def over(task: asyncio.Task[None]) -> None:  # noqa: ARG001 - it is a callback
            note.settled()
            if alone is not None and note.attempts:
                note.finish(alone)

        self.task.add_done_callback(over)

    def leave(self, listener: Listener) -> None:
        """He listens no more."""
        self._listeners.pop(listener, None)
        if self.ended:
            return
        if self.too_large:
            self.let_go()
        if not self._listeners and not self.alone and self.task is not None:
            self.given_up = True
            self.task.cancel()

    async def carry(self, source: Source) -> None:
        """Bring the answer to all who listen, to its end."""
        try:
            response = await source()
        except BaseException as error:
            self._end(error)
            raise
        self.aside = response.aside
        self.head = Head(response.status, response.headers, response.event_stream)
        self._wake()
        await self._read(response)

    async def _read(self, response: Response) -> None:
        body, observers = response.body, response.observers
        how = Ending.FAILED
        try:
            async for piece in body:
                for observer in observers:
                    observer.chunk(piece)
                self._take(piece, last=body.ended)
                if self.too_large and self._held > WINDOW:
                    await self._wait_for_room()
            self._end(None)
            how = Ending.COMPLETE
        except BaseException as error:
            how = _how(error)
            self._end(error)
            raise
        finally:
            try:
                await body.aclose()
            finally:  # as in the doors: what was used is settled, whoever cancels this again
                for observer in observers:
                    observer.end(how)

    def _take(self, piece: bytes, *, last: bool) -> None:
        now = time.monotonic()
        if not self.times:
            self._first_at = now
        if piece:  # an empty one is no news to anybody, and no frame of what is kept
            self.pieces.append(piece)
            self._held += len(piece)
            if not self.too_large:
                self.times.append(int((now - self._first_at) * 1000))
                self.too_large = self._held > self._most
        if last:
            self.ended = True
        self._wake()

    def _end(self, error: BaseException | None) -> None:
        self.ended = True
        if error is not None:
            self.error = self._kept(error)
        self._wake()

    def _kept(self, error: BaseException) -> BaseException:
        """An error as it is kept: without its frames, one of which has this flight."""
        if isinstance(error, ProxyError):
            return error.twin()
        if isinstance(error, asyncio.CancelledError | ClientGone):
            return type(error)()
        if not any(listener.began for listener in self._listeners):
            logger.error("a call that goes on without who began it has failed", exc_info=error)
            return HandedOver()
        return error

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.wake()

    def let_go(self) -> None:
        """Forget what everybody has heard of an answer that is not held."""
        heard = min((listener.at for listener in self._listeners), default=self.count)
        heard -= self._gone
        if heard > 0:
            self._held -= sum(map(len, self.pieces[:heard]))
            self._gone += heard
            del self.pieces[:heard]
        if self._room is not None and self._held <= WINDOW and not self._room.done():
            self._room.set_result(None)

    async def _wait_for_room(self) -> None:
        self.let_go()
        while self._held > WINDOW:
            self._room = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(GRACE):
                    await self._room
            except TimeoutError:
                self._cut_slow()
            finally:
                self._room = None

    def _cut_slow(self) -> None:
        """All who hold up those that wait, at once. Who listens alone may take his time."""
        if not any(listener.waits for listener in self._listeners):
            return
        first = self._first_in_window()
        for listener in [each for each in self._listeners if each.at < first]:
            logger.warning("a caller who reads too slowly to share an answer was cut off")
            listener.cut_off()
            del self._listeners[listener]
        self.let_go()

    def _first_in_window(self) -> int:
        """The first of the last pieces that WINDOW has room for."""
        room, number = WINDOW, self.count
        while number > self._gone and len(self.piece(number - 1)) <= room:
            number -= 1
            room -= len(self.piece(number))
        return number


class Listener(Body):
    """The answer of a flight, for one of those who wait for it."""

    __slots__ = ("_cut", "_flight", "_waiter", "at", "began")

    def __init__(self, flight: Flight, began: bool) -> None:
        self.at = 0
        """How many pieces he has heard."""
        self.began = began
        self._cut = False
        self._flight = flight
        self._waiter: asyncio.Future[None] | None = None

    @property
    def waits(self) -> bool:
        """Whether he has heard all that there is, and wants more."""
        return self._waiter is not None

    @property
    def ended(self) -> bool:
        flight = self._flight
        return flight.ended and flight.error is None and self.at == flight.count

    async def head(self) -> Head:
        """The answer's head, when it is there. Raises HandedOver, and what has become of the call.

        An error is each caller's own, so that he can add to it what only he shall hear.
        """
        flight = self._flight
        while flight.head is None:
            if flight.error is not None:
                if not self.began and not isinstance(flight.error, UpstreamError):
                    raise HandedOver
                raise self._failure(flight.error)
            await self._more()
        return flight.head

    async def whole(self) -> bytes | None:
        """All of the answer, when it is there; None if it is too large to be held."""
        flight = self._flight
        while not flight.ended:
            if flight.too_large:
                return None
            await self._more()
        if flight.error is not None:
            raise self._failure(flight.error)
        return None if flight.too_large else b"".join(flight.pieces)

    async def __anext__(self) -> bytes:
        flight = self._flight
        if self._cut:
            raise UpstreamDisconnected
        while self.at >= flight.count:
            if flight.ended:
                if flight.error is not None:
                    raise self._failure(flight.error)
                raise StopAsyncIteration
            await self._more()
        piece = flight.piece(self.at)
        self.at += 1
        if flight.too_large:
            flight.let_go()
        return piece

    def take_all(self) -> list[bytes]:
        """What he has not heard yet of what has come."""
        flight = self._flight
        found = [] if self._cut else [flight.piece(each) for each in range(self.at, flight.count)]
        self.at += len(found)
        if flight.too_large:
            flight.let_go()
        return found

    async def aclose(self) -> None:
        self._flight.leave(self)

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def cut_off(self) -> None:
        self._cut = True

    async def landed(self) -> None:
        """Wait until nothing is left to do for the answer, be it to keep it."""
        task = self._flight.task
        if task is not None:
            await asyncio.wait([task])

    def _failure(self, error: BaseException) -> BaseException:
        """What he is told of a call that has failed: an error that is his own."""
        if isinstance(error, ProxyError):
            return error.twin()
        if not self.began or isinstance(error, HandedOver | asyncio.CancelledError):
            # A cancelled flight is no cancelled caller.
            return UpstreamDisconnected()
        # A fault of ours is told once: with its frames it would keep the flight, and be kept by it.
        self._flight.error = HandedOver()
        return error

    async def _more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


def _how(error: BaseException) -> Ending:
    if isinstance(error, UpstreamError):
        return Ending.STOPPED if error.ours else Ending.CUT
    return Ending.CANCELLED if isinstance(error, asyncio.CancelledError) else Ending.FAILED
