"""Noticing under WSGI that a caller has left, where the server lets us see its socket.

WSGI has no word for it: without this, a leaving shows at the next write.
"""

from __future__ import annotations

import os
import socket
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from typing import Any

WATCH_AFTER = 0.02
"""Seconds before somebody looks; quick answers do without."""

POLL = 0.05
"""Seconds between two looks where the server only tells when asked."""


def watch(
    loop: AbstractEventLoop, environ: dict[str, Any], on_leave: Callable[[], None]
) -> Callable[[], None]:
    """Calls `on_leave` in the loop when the caller has closed; returns how to stop looking.

    Knows gunicorn's and Werkzeug's socket and waitress's `client_disconnected`; with any other
    server it does nothing.
    """
    ask = environ.get("waitress.client_disconnected")
    if ask is not None:
        return _Asking(loop, ask, on_leave).off
    sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    if isinstance(sock, socket.socket):
        return _Listening(loop, sock, on_leave).off
    return _nothing


def _nothing() -> None:
    return


class _Listening:
    def __init__(
        self, loop: AbstractEventLoop, sock: socket.socket, on_leave: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._on_leave = on_leave
        self._own: socket.socket | None = None
        self._timer = loop.call_later(WATCH_AFTER, self._begin)

    def off(self) -> None:
        self._timer.cancel()
        if self._own is not None:
            self._loop.remove_reader(self._own.fileno())
            self._own.close()
            self._own = None

    def _begin(self) -> None:
        # A descriptor of our own: the server may close its one, and the number be given to
        # another caller's connection, before we have stopped listening.
        try:
            duplicate = os.dup(self._sock.fileno())
        except OSError:
            self._on_leave()
            return
        self._own = socket.socket(fileno=duplicate)
        self._loop.add_reader(self._own.fileno(), self._look)

    def _look(self) -> None:
        assert self._own is not None
        try:
            left = self._own.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return
        except OSError:
            left = True
        # Bytes are a next request, or TLS: what is behind them cannot be seen from here.
        self.off()
        if left:
            self._on_leave()


class _Asking:
    def __init__(
        self, loop: AbstractEventLoop, ask: Callable[[], bool], on_leave: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._ask = ask
        self._on_leave = on_leave
        self._timer: TimerHandle = loop.call_later(WATCH_AFTER, self._look)

    def off(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if self._ask():
            self._on_leave()
        else:
            self._timer = self._loop.call_later(POLL, self._look)
