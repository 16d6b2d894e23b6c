"""One call while it is served, and what becomes of it when it takes long; for both doors."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import ClientGone
from ai_proxy_mw._stop import GRACE, Stop
from ai_proxy_mw._terms import FOREVER, Terms

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._incoming import RequestBody
    from ai_proxy_mw._types import Handler

Write = Callable[[bytes, bool], Awaitable[None]]
"""Sends a piece of the body; true with it if it is the last."""

PING = b": ping\n\n"

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")  # WHATWG HTML, section 9.2.5


class Cut(enum.Enum):
    """Why we have ended a call ourselves."""

    LEFT = "the caller has left"
    ABORTED = "the caller takes too long"  # the server may be stuck in sending to him
    STOPPING = "the process stops"  # the caller is told so


class UnderWay:
    """What the rounds know of a call, and do for it.

    `writes` says whether we wait for the caller or for the upstream, and `pieces` how much has
    been written to him, so that a look finds out whether anything has moved since the last one;
    that is all that a piece of the answer costs.
    """

    __slots__ = (
        "_cancelling",
        "_cuts",
        "_forget_at",
        "_ping",
        "_response",
        "_seen",
        "_since",
        "_task",
        "_terms",
        "_write",
        "body",
        "cut_for",
        "error",
        "gone",
        "odd",
        "pieces",
        "tail",
        "writes",
    )

    def __init__(self, terms: Terms, body: RequestBody | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[object] | None = task
        self._cancelling = task.cancelling()
        self._cuts = 0
        self._terms = terms
        self._response: Response | None = None  # while its body is delivered
        self._write: Write | None = None  # with it
        self._ping: asyncio.Task[None] | None = None
        self._since = 0.0
        self._seen = (False, -1)
        self._forget_at = 0.0
        self.body = body
        self.cut_for: Cut | None = None
        self.error: str | None = None
        """The code of what has broken the answer off."""
        self.writes = False
        self.pieces = 0
        self.tail = b"\n\n"
        """The end of what an event stream has said."""
        self.gone = False
        """Whether the call goes on without its caller."""
        self.odd = False
        """Whether to ask `nobody_waits` before anything is written."""
        terms.stop.calls.add(self)

    def off(self) -> None:
        """The call is over."""
        self._terms.stop.calls.discard(self)
        self._task = self._response = self._write = self.body = None
        if self._ping is not None:
            self._ping.cancel()

    # -- while the answer is delivered ---------------------------------------------------------

    def delivers(self, response: Response, write: Write) -> None:
        """The head has left, and the body follows."""
        self._response = response
        self._write = write

    def delivered(self) -> None:
        self._response = self._write = None
        if self._ping is not None:
            self._ping.cancel()

    @property
    def is_between_events(self) -> bool:
        """Whether an event of ours can be sent now."""
        return self._has_room() and self.tail.endswith(_EVENT_ENDS)

    def _has_room(self) -> bool:
        response = self._response
        return response is not None and response.event_stream and _is_open(response)

    async def nobody_waits(self) -> bool:
        """Whether the caller has left. Waits for the comment that is on its way to him."""
        ping, self._ping = self._ping, None
        if ping is not None:
            try:
                await ping
            except OSError:
                self.write_failed()
        self.odd = self.gone
        return self.gone

    def write_failed(self) -> None:
        """The server says by an error that the caller has left."""
        if not self._goes_on():
            raise ClientGone from None

    # -- what ends it --------------------------------------------------------------------------

    def leave(self) -> bool:
        """The caller has left; whether the call goes on without him."""
        if self._goes_on():
            return True
        self.cut(Cut.LEFT)
        return False

    def _goes_on(self) -> bool:
        if self.gone:
            return True
        drain_max = self._terms.drain_max
        if drain_max is None or self._task is None or self.body is None:
            return False
        if not self.body.arrived:
            return False  # the rest of his request will never come
        self.gone = self.odd = True
        self._forget_at = self._task.get_loop().time() + drain_max
        return True

    def cut(self, why: Cut) -> None:
        if self._task is not None:
            self.cut_for = why
            self._cuts += 1
            self._task.cancel()

    def caused_cancel(self) -> bool:
        """Whether the cancellation under way is ours alone; it then counts as dealt with."""
        if not self._cuts or self._task is None:
            return False
        left = 0
        while self._cuts:
            self._cuts -= 1
            left = self._task.uncancel()
        return left <= self._cancelling

    def was_stopped(self) -> bool:
        """Whether it was cancelled to tell the caller that the process stops."""
        return self.cut_for is Cut.STOPPING and self.caused_cancel()

    # -- in the rounds -------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """What only one door looks at."""

    def attend(self, now: float) -> bool:
        if self._task is None:
            return False
        stands = (self.writes, self.pieces)
        if stands != self._seen:
            self._seen = stands
            self._since = now
        self.look(now)
        if self._terms.stop.deadline is not None:
            self._end_in_time()
        if self.cut_for is None:
            self._judge(now)
        return True

    def _judge(self, now: float) -> None:
        silent = now - self._since
        if self.gone:
            if now >= self._forget_at:
                self.cut(Cut.LEFT)
        elif self.writes or self._is_pinging():
            if silent > self._terms.write:
                self.cut(Cut.ABORTED)
        elif silent >= self._terms.keepalive:
            self._keep_alive(now)

    def _is_pinging(self) -> bool:
        return self._ping is not None and not self._ping.done()

    def _keep_alive(self, now: float) -> None:
        """Send a comment, which readers of event streams pass over, unless an event is half sent.

        In a task of its own, for the body is being read; the next piece waits for it.
        """
        if self._task is None or self._write is None or self._response is None:
            return
        if self.is_between_events and not self._response.body.ended:
            self._since = now
            self._ping = self._task.get_loop().create_task(_send(self._write))
            self._ping.add_done_callback(_look_at)
            self.odd = True

    def _end_in_time(self) -> None:
        stop = self._terms.stop
        if not stop.is_over():
            return
        if stop.is_over(GRACE):
            if self.cut_for is not Cut.ABORTED:
                self.cut(Cut.ABORTED)
        elif self.cut_for is None:
            if self.gone:
                self.cut(Cut.LEFT)
            elif self._can_be_told():
                self.cut(Cut.STOPPING)

    def _can_be_told(self) -> bool:
        """Whether the call is at a point where it can end well, or cannot come to one."""
        return not self._has_room() or (not self.writes and self.is_between_events)


def unwatched() -> UnderWay:
    """For an answer that nobody waits for at a door: it is in no rounds."""
    return UnderWay(Terms(FOREVER, FOREVER, None, Stop(drain=FOREVER, signals=False)), None)


def _is_open(response: Response) -> bool:
    """Whether something can be added: the length was not told, and the bytes are not packed."""
    for name, value in response.headers:
        if name == b"content-length" or (name == b"content-encoding" and value != b"identity"):
            return False
    return True


async def respond(
    request: Request, call: UnderWay, terms: Terms, handle: Handler, stopping: Handler
) -> Response:
    """The answer to a call, or that the process stops."""
    if terms.stop.deadline is None:
        try:
            return await handle(request)
        except asyncio.CancelledError:
            if not call.was_stopped():
                raise
    return await stopping(request)


async def _send(write: Write) -> None:
    await write(PING, False)


def _look_at(task: asyncio.Task[None]) -> None:
    # It is raised where the next piece would be written; there may be no next piece.
    if not task.cancelled():
        task.exception()
