"""Noticing under WSGI that a caller has left, where the server lets us see its socket.

WSGI has no word for it: without this, a leaving shows at the next write.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

# POLLRDHUP is Linux's: the peer has closed, whatever unread bytes (or TLS) stand before that.
_CLOSED = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


class Leaving:
    """Calls `on_leave` once the caller has closed; looks in every round until `off()`.

    Knows gunicorn's and Werkzeug's socket and waitress's `client_disconnected`; with any other
    server it does nothing. The loop could be told to listen instead, but libuv makes what it
    listens to non-blocking, and with it the server's own socket, which is the same file to the
    kernel.
    """

    __slots__ = ("_ask", "_on_leave")

    def __init__(self, environ: dict[str, Any], on_leave: Callable[[], None]) -> None:
        self._ask = _question(environ)
        self._on_leave = on_leave

    def off(self) -> None:
        self._ask = None

    def attend(self, now: float) -> bool:  # noqa: ARG002 - there is no deadline here
        if self._ask is None:
            return False
        if self._ask():
            self._on_leave()
            return False
        return True


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
