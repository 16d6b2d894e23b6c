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
    """Calls `on_leave` once the caller has closed, when asked to look.

    Knows gunicorn's and Werkzeug's socket and waitress's `client_disconnected`; with any other
    server it does nothing. The loop could be told to listen instead, but libuv makes what it
    listens to non-blocking, and with it the server's own socket, which is the same file to the
    kernel.
    """

    __slots__ = ("_ask", "_on_leave", "_socket")

    def __init__(self, environ: dict[str, Any], on_leave: Callable[[], None]) -> None:
        self._socket = _socket(environ)
        self._ask = _question(environ, self._socket)
        self._on_leave = on_leave

    def look(self) -> None:
        if self._ask is not None and self._ask():
            self._ask = None
            self._on_leave()

    def hang_up(self) -> None:
        """Close the caller's connection under a worker that is stuck in sending to him."""
        self._shut(socket.SHUT_RDWR)

    def stop_reading(self) -> None:
        """Free a worker that waits for more of the request; it can still answer."""
        self._shut(socket.SHUT_RD)

    def _shut(self, how: int) -> None:
        if self._socket is None:
            return
        try:
            # Not its own method: that of TLS would change what the worker is just using.
            socket.socket.shutdown(self._socket, how)
        except OSError:
            pass  # it is closed already


def _socket(environ: dict[str, Any]) -> socket.socket | None:
    sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    return sock if isinstance(sock, socket.socket) else None


def _question(environ: dict[str, Any], sock: socket.socket | None) -> Callable[[], bool] | None:
    ask: Callable[[], bool] | None = environ.get("waitress.client_disconnected")
    if ask is not None:
        return ask
    return None if sock is None else partial(_is_closed, sock)


def _is_closed(sock: socket.socket) -> bool:
    number = sock.fileno()
    if number < 0:
        return True
    poll = select.poll()
    poll.register(number, _CLOSED)
    return bool(poll.poll(0))
