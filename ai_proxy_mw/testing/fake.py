"""FakeUpstream: a provider of AI that costs nothing and always says the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from ai_proxy_mw.testing._exchange import Desk, Exchange
from ai_proxy_mw.testing._faults import BEFORE_HEAD, Fault, place_of
from ai_proxy_mw.testing._files import download_pieces
from ai_proxy_mw.testing._gate import Gate
from ai_proxy_mw.testing._record import Record, SeenRequest
from ai_proxy_mw.testing._server import FakeServer
from ai_proxy_mw.testing._transport import FakeTransport

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

FAKE_BASE_URL = "http://fake.invalid/v1"
"""A base URL to name beside `transport=fake.transport()`; nothing ever connects to it."""


class FakeUpstream:
    """An OpenAI-shaped upstream for tests, demos and measurements.

    Use it in process, `Upstream(base_url=FAKE_BASE_URL, transport=fake.transport())`, or on a
    port, `with fake.serve() as server: ... server.base_url`. Both give the same answers: the same
    request gets the same bytes.

    pace: seconds between two events of a stream.
    words: what the model says, one token each; None lets it repeat the last message.
    models: the ids that /models lists.
    download_bytes: the size of every file's content.
    compress: "gzip" compresses JSON and event streams for callers that accept it, "always" also
        for those that did not ask.
    stream_options: whether they are taken; otherwise a call that has them is refused with 400, as
        strict servers do.
    keep_requests: how many of the last requests are kept.
    keep_body: how many bytes of each request's body are kept.

    All but `keep_requests` are attributes too and may be changed at any time, from any thread.
    The methods that wait block their thread: call them through `asyncio.to_thread` where the
    fake's answers run in the same event loop.
    """

    def __init__(
        self,
        *,
        pace: float = 0.0,
        words: Sequence[str] | None = None,
        models: Sequence[str] = ("fake-1", "fake-2"),
        download_bytes: int = 1 << 20,
        compress: Literal["gzip", "always"] | None = None,
        stream_options: bool = True,
        keep_requests: int = 10_000,
        keep_body: int = 1 << 20,
    ) -> None:
        self.pace = pace
        self.words = words
        self.models = models
        self.download_bytes = download_bytes
        self.compress = compress
        self.stream_options = stream_options
        self.keep_body = keep_body
        self._desk = Desk(self, Record(keep_requests))

    def transport(self) -> FakeTransport:
        """The fake as a `Transport`, in process."""
        return FakeTransport(self._open)

    def serve(self, *, host: str = "127.0.0.1", port: int = 0) -> FakeServer:
        """The fake as an HTTP/1.1 server; `with` runs it in a thread, `async with` in this loop."""
        return FakeServer(self._open, self._desk.record, host, port)

    def fail(
        self,
        status: int = 500,
        *,
        times: int = 1,
        code: str | None = None,
        type: str = "server_error",
        message: str = "The fake was told to fail.",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        path: str | None = None,
    ) -> None:
        """Answer the next `times` requests with an error, in the provider's shape or as `body`.

        `path`, such as "/chat/completions", leaves requests to other endpoints alone.
        """
        fault = Fault(
            kind="fail",
            path=path,
            status=status,
            code=code,
            type=type,
            message=message,
            param=param,
            headers=headers or {},
            body=body,
        )
        self._desk.faults.add(fault, times)

    def disconnect(
        self, *, times: int = 1, after: str = "request", path: str | None = None
    ) -> None:
        """Break off the connection of the next `times` requests.

        `after`: "accept" (the head of the request), "request" (all of it), "headers" (of the
        answer) or "chunk:N" (N pieces of the answer's body; one that is all in one piece goes
        out in two halves). An answer of fewer pieces is not broken off.
        """
        place = place_of(after, headers=0)
        self._desk.faults.add(Fault(kind="disconnect", place=place, path=path), times)

    def stall(self, *, times: int = 1, at: str = "headers", path: str | None = None) -> None:
        """Go silent in the next `times` requests, until the client leaves.

        `at`: "accept" (read no more of the request than its head; a client that leaves while it
        still uploads is then not noticed), "headers" (take the request and answer nothing) or
        "chunk:N" (after N pieces of the answer's body).
        """
        place = place_of(at, headers=BEFORE_HEAD)
        self._desk.faults.add(Fault(kind="stall", place=place, path=path), times)

    def hold(self, at: Literal["chunks", "headers"] = "chunks") -> Gate:
        """Let answers out by hand, until the gate is opened.

        "chunks": each piece of a streamed body waits for a release (and none for the pace), the
        head does not. "headers": each answer waits before its head.
        """
        gate = Gate()
        if at == "chunks":
            self._desk.gates.chunks = gate
        elif at == "headers":
            self._desk.gates.headers = gate
        else:
            raise ValueError(f"at={at!r}: write 'chunks' or 'headers'")
        return gate

    def reset(self) -> None:
        """Forget requests and faults still to come, and open the gates."""
        self._desk.faults.clear()
        self._desk.gates.open()
        self._desk.record.clear()

    @property
    def requests(self) -> list[SeenRequest]:
        """The last requests, oldest first."""
        return self._desk.record.requests()

    @property
    def calls_open(self) -> int:
        """How many calls have not ended, in process and on sockets."""
        return self._desk.record.calls_open

    @property
    def connections_opened(self) -> int:
        """How many connections the servers of this fake have taken."""
        return self._desk.record.connections_opened

    @property
    def connections_open(self) -> int:
        """How many connections to the servers of this fake are open."""
        return self._desk.record.connections_open

    def wait_for_request(self, n: int = 1, timeout: float = 5.0) -> SeenRequest:
        """Block until the nth request has come whole, or was given up. Raises TimeoutError."""
        return self._desk.record.wait_for_request(n, timeout)

    def wait_for_disconnect(self, timeout: float = 5.0, *, n: int = 1) -> SeenRequest:
        """Block until the nth client has left before its answer's end. Raises TimeoutError."""
        return self._desk.record.wait_for_disconnect(n, timeout)

    def wait_until_quiet(self, timeout: float = 5.0) -> None:
        """Block until no call goes on and no connection is open. Raises TimeoutError."""
        self._desk.record.wait_for_quiet(timeout)

    def download(self) -> Iterator[bytes]:
        """What GET /files/{id}/content answers, in pieces."""
        return download_pieces(self.download_bytes)

    def _open(self, method: str, target: bytes, headers: RawHeaders, connection: int) -> Exchange:
        return Exchange(self._desk, method, target, headers, connection)
