"""Noticing under WSGI that a caller has left, where the server lets us see its socket.

WSGI has no word for it: without this, a leaving shows at the next write.
"""

from __future__ import annotations

import select
import socket
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from functools import partial
from typing import Any

LOOK_EVERY = 0.04
"""Seconds between two looks; quick answers are done before the first.

The loop could be told to listen instead, but libuv makes what it listens to non-blocking, and
with it the server's own socket, which is the same file to the kernel.
"""

# POLLRDHUP is Linux's: the peer has closed, whatever unread bytes (or TLS) stand before that.
_CLOSED = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


class Leaving:
    """Calls `on_leave` in the loop once the caller has closed; `off()` ends the looking.

    Knows gunicorn's and Werkzeug's socket and waitress's `client_disconnected`; with any other
    server it does nothing.
    """

    def __init__(
        self, loop: AbstractEventLoop, environ: dict[str, Any], on_leave: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._on_leave = on_leave
        self._timer: TimerHandle | None = None
        ask = _question(environ)
        if ask is not None:
            self._ask = ask
            self._timer = loop.call_later(LOOK_EVERY, self._look)

    def off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if self._ask():
            self._on_leave()
        else:
            self._timer = self._loop.call_later(LOOK_EVERY, self._look)


def _question(environ: dict[str, Any]) -> Callable[[], bool] | None:
    ask: Callable[[], bool] | None = environ.get("waitress.client_disconnected")
    if ask is not None:
        return ask
    sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    return partial(_is_closed, sock) if isinstance(sock, socket.socket) else None


def _is_closed(sock: socket.socket) -> bool:
    number = sock.fileno()
    if number < 0:
        return True
    poll = select.poll()
    poll.register(number, _CLOSED)
    return bool(poll.poll(0))
