"""The last step, the same for both doors: a response's body goes out, watched by its observers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import ClientGone, ProxyError, Unavailable, UpstreamError
from ai_proxy_mw._http import Ending
from ai_proxy_mw._under_way import unwatched

if TYPE_CHECKING:
    from ai_proxy_mw._http import Response
    from ai_proxy_mw._under_way import UnderWay, Write

logger = logging.getLogger("ai_proxy_mw")

Start = Callable[["Response"], Awaitable[None]]
"""Sends the head."""


class Truncated(Exception):
    """The body cannot be finished: the connection must be closed without its end mark."""


async def deliver(  # noqa: C901 - one frame: each further one is woken for every piece
    response: Response, start: Start, write: Write, call: UnderWay | None = None
) -> None:
    """Send the head and then the body piece by piece, and close it, however it ends.

    What ends it in the middle, be it the upstream or our own process, becomes an error event where
    the body is an event stream that stands between two events, else Truncated. A second answer
    never follows the first. A caller who has left is sent nothing; the observers see it all.
    """
    if call is None:
        call = unwatched()
    body = response.body
    observers = response.observers
    event_stream = response.event_stream
    how = Ending.FAILED
    last = False
    try:
        if not call.gone:
            call.writes = True
            try:
                await start(response)
            except OSError:
                call.write_failed()
            call.writes = False
        call.delivers(response, write)
        async for chunk in body:
            for observer in observers:
                observer.chunk(chunk)
            if event_stream:
                call.tail = chunk[-4:] if len(chunk) > 3 else (call.tail + chunk)[-4:]
            last = body.ended
            if call.odd and await call.nobody_waits():
                continue
            call.writes = True
            try:
                await write(chunk, last)
            except OSError:
                call.write_failed()
            call.writes = False
            call.pieces += 1
        if not last and not (call.odd and await call.nobody_waits()):
            call.writes = True
            try:
                await write(b"", True)
            except OSError:
                call.write_failed()
        how = Ending.CANCELLED if call.gone else Ending.COMPLETE
    except UpstreamError as error:
        how = Ending.STOPPED if error.ours else Ending.CUT
        call.error = error.code
        logger.warning("an answer was cut: %s", error.code)
        await _tell(error, call, write)
    except asyncio.CancelledError:
        how = Ending.CANCELLED
        if not call.was_stopped():
            raise
        how = Ending.STOPPED
        call.error = Unavailable.code
        await _tell(Unavailable(), call, write)
    except ClientGone:
        how = Ending.CANCELLED
        raise
    finally:
        call.delivered()
        try:
            await body.aclose()
        finally:  # who leaves twice cancels this, too; what was used is settled none the less
            for observer in observers:
                observer.end(how)


async def _tell(error: ProxyError, call: UnderWay, write: Write) -> None:
    """The last event of a stream. There is no [DONE]: it must not be taken for whole."""
    if (call.odd and await call.nobody_waits()) or not call.is_between_events:
        raise Truncated("an answer ends in the middle") from error
    call.writes = True
    try:
        # The messages API's clients look for the type.
        await write(b"event: error\ndata: " + error.body()[:-1] + b',"type":"error"}\n\n', True)
    except OSError:
        call.write_failed()
