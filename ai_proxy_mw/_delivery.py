"""The last step, the same for both doors: a response's body goes out, watched by its observers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import ClientGone, UpstreamError
from ai_proxy_mw._http import Ending

if TYPE_CHECKING:
    from ai_proxy_mw._http import Response

logger = logging.getLogger("ai_proxy_mw")

Write = Callable[[bytes, bool], Awaitable[None]]
"""Sends a piece of the body; true with it if it is the last."""

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")  # WHATWG HTML, section 9.2.5


class Truncated(Exception):
    """The body cannot be finished: the door must close the connection without its end mark."""


async def deliver(response: Response, write: Write) -> None:
    """Send the body piece by piece and close it, however it ends.

    An upstream that fails in the middle becomes an error event where the body is an event stream
    that stands between two events, else Truncated. A second answer never follows the first.
    """
    how = Ending.FAILED
    try:
        await _send_all(response, write)
        how = Ending.COMPLETE
    except (Truncated, _Finished) as stop:
        how = Ending.CUT
        if isinstance(stop, Truncated):
            raise
    except (asyncio.CancelledError, ClientGone):
        how = Ending.CANCELLED
        raise
    finally:
        await response.body.aclose()
        for observer in response.observers:
            observer.end(how)


class _Finished(Exception):
    """The body was cut, but its caller has been told by an error event."""


async def _send_all(response: Response, write: Write) -> None:
    body = response.body
    observers = response.observers
    last = False
    tail = b"\n\n"
    try:
        async for chunk in body:
            for observer in observers:
                observer.chunk(chunk)
            last = body.ended
            tail = chunk[-4:] if len(chunk) > 3 else (tail + chunk)[-4:]
            await write(chunk, last)
    except UpstreamError as error:
        logger.warning("an answer was cut: %s", error.code)
        if response.event_stream and tail.endswith(_EVENT_ENDS):
            await write(b"event: error\ndata: " + error.body() + b"\n\n", True)
            raise _Finished from error
        raise Truncated from error
    if not last:
        await write(b"", True)
