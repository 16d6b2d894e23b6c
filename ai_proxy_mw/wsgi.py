"""The WSGI door: for Flask, Django under WSGI, and any other WSGI app (PEP 3333)."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ai_proxy_mw._bridge import Bridge, Broken, Piece
from ai_proxy_mw._calls import read_head
from ai_proxy_mw._delivery import Truncated, deliver
from ai_proxy_mw._errors import ClientGone, InvalidRequest
from ai_proxy_mw._http import Request, Response
from ai_proxy_mw._incoming import Pull, RequestBody
from ai_proxy_mw._leaving import Leaving
from ai_proxy_mw._loop import DRAINING, loop_thread
from ai_proxy_mw._paths import below, is_tricky
from ai_proxy_mw._proxy import AIProxy, ProxyOptions, of, refuse_by_route, require_by_route
from ai_proxy_mw._under_way import Cut, UnderWay, respond

if TYPE_CHECKING:
    from typing import Unpack

    from ai_proxy_mw._identity import Identity
    from ai_proxy_mw._terms import Terms
    from ai_proxy_mw._types import Handler, RawHeaders

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

logger = logging.getLogger("ai_proxy_mw")

_HANDED_OVER = "ai_proxy_mw.handed_over"

READ_SIZE = 64 * 1024

_REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class AIProxyWSGIMiddleware:
    """Serves the proxy under its prefix and leaves everything else to `app`.

    Give it `proxy=` or the arguments of `AIProxy`. Without an app everything outside the prefix
    is 404. The work is done by one event loop in a thread of its own, started in each process
    with its first call; the worker's thread reads the caller's body and writes the answer.
    """

    def __init__(
        self,
        app: WSGIApp | None = None,
        *,
        proxy: AIProxy | None = None,
        **options: Unpack[ProxyOptions],
    ) -> None:
        self.app = app
        self.proxy = of(proxy, options)
        refuse_by_route(self.proxy)
        self.proxy.terms.stop.listen()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        rest = below(self.proxy.prefix, path)
        page, shown = self.proxy.dashboard, None
        if rest is None and page is not None:
            rest = below(page.prefix, path)
            shown = None if rest is None else page.handle
        if rest is None and self.app is not None:
            return self.app(environ, start_response)
        call = _Call(self.proxy, environ, rest, shown)
        call.request.app = self.app
        return call.answer(start_response)


class RouteDoor:
    """Takes the calls that routes of a WSGI app hand over, and with them who is calling."""

    def __init__(self, proxy: AIProxy) -> None:
        require_by_route(proxy)
        self.proxy = proxy
        proxy.terms.stop.listen()

    def serve(
        self,
        environ: Environ,
        start_response: StartResponse,
        *,
        path: str,
        identified: str | Identity | None = None,
        refusal: Exception | None = None,
    ) -> Iterable[bytes]:
        """Answer one call as a WSGI app does; `path` is what follows the prefix.

        `identified` and `refusal` are what the app's route made out; see `Request`. What is
        given back must be closed.
        """
        if refusal is None and environ.get(_HANDED_OVER):
            raise RuntimeError("a view has handed the same call over twice; its body is read")
        environ[_HANDED_OVER] = True
        call = _Call(self.proxy, environ, path)
        call.request.hand_over(identified, refusal)
        return call.answer(start_response)


class _Call:
    """One request, seen from both threads: the worker's and the loop's."""

    def __init__(
        self, proxy: AIProxy, environ: Environ, rest: str | None, page: Handler | None = None
    ) -> None:
        thread = loop_thread()
        thread.at_stop(proxy, proxy.aclose)
        if not proxy.terms.stop.met:
            proxy.terms.stop.meet()
        self._proxy = proxy
        self._page = page
        self._environ = environ
        self._loop = thread.loop
        self._rounds = thread.rounds
        self._bridge = Bridge(thread.loop)
        self._under_way: _UnderWay | None = None
        self._head: tuple[int, RawHeaders] | None = None
        remaining, empty = _framing(environ)
        headers = _headers(environ)
        request_id, length = read_head(headers)
        body = RequestBody(
            # No patience is given: a worker that reads cannot be interrupted.
            _puller(self._bridge, _Input(environ, remaining)),
            declared=length,
            limit=proxy.max_body,
            empty=empty,
        )
        self.request = Request(
            method=environ["REQUEST_METHOD"],
            path=None if is_tricky(_raw_path(environ)) else rest,
            query=environ.get("QUERY_STRING", "").encode("latin-1"),
            headers=headers,
            body=body,
            client=proxy.client_of(environ.get("REMOTE_ADDR") or None, headers),
            request_id=request_id,
            run_sync=self._bridge.run_sync,
            environ=environ,
        )

    # -- in the worker's thread --------------------------------------------------------------

    def answer(self, start_response: StartResponse) -> Iterable[bytes]:
        self._loop.call_soon_threadsafe(self._begin)
        try:
            piece = self._first_piece(start_response)
        except BaseException:
            # The server will not ask for more, and has nothing to close.
            self._leave()
            raise
        if piece.last:
            return [piece.chunk] if piece.chunk else []
        return _Rest(self._bridge, piece.chunk, self._leave)

    def _first_piece(self, start_response: StartResponse) -> Piece:
        piece = self._bridge.take()
        if isinstance(piece, Broken) or piece.head is None:
            raise _broken_off()
        status, headers = piece.head
        start_response(
            _REASONS.get(status) or f"{status} Unknown",
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers],
        )
        return piece

    def _leave(self) -> None:
        self._loop.call_soon_threadsafe(self._on_leave)

    # -- in the loop -------------------------------------------------------------------------

    def _begin(self) -> None:
        # Before anything can ask for its end: calls to the loop are run in their order.
        self._task = self._loop.create_task(self._run())

    def _on_leave(self) -> None:
        if self._under_way is None:
            self._task.cancel()  # it has not begun
        elif self._under_way.leave():
            self._task.set_name(DRAINING)
            self._bridge.let_go()

    async def _run(self) -> None:
        proxy, page = self._proxy, self._page
        handle, stopping = (proxy.handle, proxy.stopping) if page is None else (page, page)
        leaving = Leaving(self._environ, self._on_leave)
        call = self._under_way = _UnderWay(proxy.terms, self.request.body, leaving)
        self._rounds.join(call)
        try:
            response = await respond(self.request, call, proxy.terms, handle, stopping)
            await deliver(response, self._start, self._write, call)
        except Truncated:
            if self._head is not None:
                # Some servers go on as if nothing were wrong unless the answer has begun.
                await self._write(b"", False)
            self._bridge.break_off()
        except ClientGone:
            self._bridge.break_off()
        except asyncio.CancelledError:
            if call.cut_for is Cut.ABORTED:
                # The worker may be stuck in sending, with much behind it that is not wanted now.
                self._bridge.let_go()
                leaving.hang_up()
            else:
                self._bridge.break_off()
            if not call.caused_cancel():
                raise  # the process is ending
        except BaseException:
            # Nobody awaits this task; the worker must not wait for ever.
            logger.exception("%s: the answer could not be sent", self.request.id)
            self._bridge.break_off()
        finally:
            call.off()
            note = self.request.note
            if note is not None:
                note.finish(self.request, call.error)

    async def _start(self, response: Response) -> None:
        self._head = (response.status, response.headers)
        if response.event_stream:
            await self._write(b"", False)  # else it goes out with the first piece, in one wake-up

    async def _write(self, chunk: bytes, last: bool) -> None:
        head, self._head = self._head, None
        await self._bridge.send(Piece(head, chunk, last))


class _UnderWay(UnderWay):
    """Asks in every round whether the caller has left."""

    __slots__ = ("_leaving",)

    def __init__(self, terms: Terms, body: RequestBody, leaving: Leaving) -> None:
        super().__init__(terms, body)
        self._leaving = leaving

    def look(self, now: float) -> None:  # noqa: ARG002 - there is no deadline here
        if not self.gone:
            self._leaving.look()

    def cut(self, why: Cut) -> None:
        if why is Cut.STOPPING and self.body is not None and not self.body.arrived:
            self._leaving.stop_reading()
        super().cut(why)


class _Input:
    """The caller's body, read in the worker's thread."""

    def __init__(self, environ: Environ, remaining: int | None) -> None:
        self._stream = environ.get("wsgi.input")
        self._remaining = remaining

    def read(self) -> tuple[bytes, bool]:
        """A piece, and whether it was the last."""
        assert self._stream is not None  # PEP 3333 wants one where there is a body
        size = READ_SIZE if self._remaining is None else min(READ_SIZE, self._remaining)
        try:
            chunk: bytes = self._stream.read(size)
        except Exception as error:  # each server has errors of its own for a bad chunk
            raise InvalidRequest("The request body cannot be read.") from error
        if self._remaining is None:
            return chunk, not chunk
        if not chunk and self._remaining:
            raise ClientGone
        self._remaining -= len(chunk)
        return chunk, self._remaining == 0


def _puller(bridge: Bridge, stream: _Input) -> Pull:
    async def pull() -> tuple[bytes, bool]:
        return await bridge.run_sync(stream.read)

    return pull


class _Rest:
    """The answer after its first piece, as the WSGI server iterates it."""

    def __init__(self, bridge: Bridge, first: bytes, leave: Callable[[], None]) -> None:
        self._bridge = bridge
        self._first: bytes | None = first
        self._leave = leave
        self._done = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            # Also if it is empty: most servers send the head with the first piece they are given.
            first, self._first = self._first, None
            return first
        if self._done:
            raise StopIteration
        piece = self._bridge.take()
        if isinstance(piece, Broken):
            self._done = True
            raise _broken_off()
        self._done = piece.last
        if piece.last and not piece.chunk:
            raise StopIteration
        return piece.chunk

    def close(self) -> None:
        """The server is done, or its caller has left: what still comes is not wanted."""
        if not self._done:
            self._done = True
            self._leave()


def _broken_off() -> OSError:
    """Tells the server to close the connection, and not as if the answer were whole.

    Servers take this number for a caller that has left, and do not log a fault of the app.
    """
    return ConnectionResetError(errno.ECONNRESET, "the answer was broken off")


def _headers(environ: Environ) -> RawHeaders:
    """The request's header lines. Servers turn `-` into `_`; names sent with `_` they must drop."""
    headers = [
        (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    if environ.get("CONTENT_TYPE"):
        headers.append((b"content-type", environ["CONTENT_TYPE"].encode("latin-1")))
    if environ.get("CONTENT_LENGTH"):
        headers.append((b"content-length", environ["CONTENT_LENGTH"].encode("latin-1")))
    return headers


def _framing(environ: Environ) -> tuple[int | None, bool]:
    """How much of `wsgi.input` may be read (None: to its end), and whether there is no body."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isascii() and length.isdigit() and len(length) < 19:
        return int(length), int(length) == 0
    # Only a server that ends its input itself can be read without a length.
    terminated = bool(environ.get("wsgi.input_terminated")) and "HTTP_TRANSFER_ENCODING" in environ
    return None, not terminated


def _raw_path(environ: Environ) -> bytes:
    """The path before decoding, where the server tells: gunicorn, Werkzeug, uWSGI, mod_wsgi."""
    raw: str = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    return raw.partition("?")[0].encode("latin-1")
