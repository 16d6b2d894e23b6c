"""What the fake saw, for tests to ask about from any thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from ai_proxy_mw._http import Headers
from ai_proxy_mw._types import RawHeaders

T = TypeVar("T")

Outcome = Literal["complete", "disconnected", "failed"]

_KEPT_BODIES = 64 << 20


class SeenRequest:
    """A request as it came, and how its answer ended.

    `path` and `query` are as sent; `headers` the lines in their order, names in lower case.
    `body` holds at most the fake's `keep_body` bytes, while `body_size` and `sha256` tell of all
    of it. `outcome` is None while the call goes on; then "complete", "disconnected" (the client
    left, at `disconnected_at` on the monotonic clock) or "failed" (the fake broke off).
    `chunks_sent` counts the pieces of the answer's body; `connection` numbers the connection that
    carried the call, from 1, and is 0 without a socket. `arrived` is true when the request has
    come whole, `kept` while it is among the fake's `requests`.
    """

    __slots__ = (
        "arrived",
        "body",
        "body_size",
        "chunks_sent",
        "connection",
        "disconnected_at",
        "headers",
        "kept",
        "method",
        "outcome",
        "path",
        "query",
        "sha256",
        "status",
    )

    def __init__(
        self, *, method: str, path: str, query: str, headers: RawHeaders, connection: int
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.connection = connection
        self.arrived = False
        self.kept = True
        self.body = b""
        self.body_size = 0
        self.sha256 = ""
        self.status: int | None = None
        self.outcome: Outcome | None = None
        self.disconnected_at: float | None = None
        self.chunks_sent = 0

    def header(self, name: str) -> str | None:
        """The first header line of that name, or None."""
        return Headers(self.headers).get(name)

    def json(self) -> Any:
        """The body, decoded. Raises ValueError if it is not JSON or was too large to be kept."""
        return msgspec.json.decode(self.body)

    def __repr__(self) -> str:
        return (
            f"SeenRequest({self.method} {self.path}, {self.body_size} bytes, "
            f"status={self.status}, outcome={self.outcome})"
        )


class Record:
    """The last requests, counted and bounded."""

    def __init__(self, keep: int) -> None:
        self._changed = threading.Condition()
        self._keep = keep
        self._kept_bytes = 0
        self._requests: deque[SeenRequest] = deque()
        self._forgotten = 0
        self.calls_open = 0
        self.connections_opened = 0
        self.connections_open = 0

    def requests(self) -> list[SeenRequest]:
        with self._changed:
            return list(self._requests)

    def clear(self) -> None:
        with self._changed:
            while self._requests:
                self._forget_oldest()
            self._forgotten = 0

    def begin(self, seen: SeenRequest) -> None:
        with self._changed:
            self.calls_open += 1
            self._requests.append(seen)
            self._trim()

    def arrived(self, seen: SeenRequest) -> None:
        """All of the request is there."""
        with self._changed:
            seen.arrived = True
            if seen.kept:
                self._kept_bytes += len(seen.body)
            self._trim()
            self._changed.notify_all()

    def end(self, seen: SeenRequest, outcome: Outcome) -> None:
        """How it ended; what is said first holds."""
        with self._changed:
            if seen.outcome is not None:
                return
            self.calls_open -= 1
            seen.outcome = outcome
            if outcome == "disconnected":
                seen.disconnected_at = time.monotonic()
            self._changed.notify_all()

    def connected(self) -> int:
        """Count a connection; gives its number."""
        with self._changed:
            self.connections_opened += 1
            self.connections_open += 1
            return self.connections_opened

    def disconnected(self) -> None:
        with self._changed:
            self.connections_open -= 1
            self._changed.notify_all()

    def _trim(self) -> None:
        while len(self._requests) > self._keep or self._kept_bytes > _KEPT_BODIES:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        seen = self._requests.popleft()
        seen.kept = False
        self._forgotten += 1
        if seen.arrived:
            self._kept_bytes -= len(seen.body)

    def wait_for_request(self, n: int, timeout: float) -> SeenRequest:
        def nth() -> SeenRequest | None:
            index = n - 1 - self._forgotten
            if not 0 <= index < len(self._requests):
                return None
            seen = self._requests[index]
            return seen if seen.arrived or seen.outcome else None

        return self._wait(nth, timeout, f"request {n}")

    def wait_for_disconnect(self, n: int, timeout: float) -> SeenRequest:
        def nth() -> SeenRequest | None:
            gone = [seen for seen in self._requests if seen.outcome == "disconnected"]
            return gone[n - 1] if len(gone) >= n else None

        return self._wait(nth, timeout, f"disconnect {n}")

    def wait_for_quiet(self, timeout: float) -> None:
        def quiet() -> bool | None:
            return True if self.calls_open == self.connections_open == 0 else None

        self._wait(quiet, timeout, "the end of all calls and connections")

    def _wait(self, ready: Callable[[], T | None], timeout: float, what: str) -> T:
        with self._changed:
            found = self._changed.wait_for(ready, timeout)
            if found is None:
                seen = list(self._requests)[-5:]
                raise TimeoutError(f"{what} did not come within {timeout} s; last seen: {seen}")
            return found
