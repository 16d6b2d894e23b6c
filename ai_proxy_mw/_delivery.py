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

Start = Callable[["Response"], Awaitable[None]]
"""Sends the head."""

Write = Callable[[bytes, bool], Awaitable[None]]
"""Sends a piece of the body; true with it if it is the last."""

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")  # WHATWG HTML, section 9.2.5


class Truncated(Exception):
    """The body cannot be finished: the connection must be closed without its end mark."""


async def deliver(response: Response, start: Start, write: Write) -> None:
    """Send the head and then the body piece by piece, and close it, however it ends.


    An upstream that fails in the middle becomes an error event where the body is an event stream
    that stands between two events, else Truncated. A second answer never follows the first.
    """
    body = response.body
    observers = response.observers
    event_stream = response.event_stream
    how = Ending.FAILED
    last = False
    tail = b"\n\n"
    try:
        await start(response)
        async for chunk in body:
            for observer in observers:
                observer.chunk(chunk)
            if event_stream:
                tail = chunk[-4:] if len(chunk) > 3 else (tail + chunk)[-4:]
            last = body.ended
            await write(chunk, last)
        if not last:
            await write(b"", True)
        how = Ending.COMPLETE
    except UpstreamError as error:
        how = Ending.CUT
        logger.warning("an answer was cut: %s", error.code)
        if not event_stream or not tail.endswith(_EVENT_ENDS) or _has_length(response):
            raise Truncated("the upstream broke off in the middle of an answer") from error
        await write(b"event: error\ndata: " + error.body() + b"\n\n", True)
    except (asyncio.CancelledError, ClientGone):
        how = Ending.CANCELLED
        raise
    finally:
        try:
            await body.aclose()
        finally:  # who leaves twice cancels this, too; what was used is settled none the less
            for observer in observers:
                observer.end(how)


def _has_length(response: Response) -> bool:
    """Whether the number of bytes was told, so that there is no room for an error event."""
    return any(name == b"content-length" for name, _ in response.headers)
