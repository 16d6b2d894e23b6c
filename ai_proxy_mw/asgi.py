"""The ASGI door: for FastAPI, Starlette, Django under ASGI, and any other ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from ai_proxy_mw._calls import read_head
from ai_proxy_mw._delivery import Truncated, deliver
from ai_proxy_mw._errors import ClientGone
from ai_proxy_mw._hook_threads import run_sync
from ai_proxy_mw._http import Request, Response
from ai_proxy_mw._incoming import Pull, RequestBody
from ai_proxy_mw._paths import below, is_tricky
from ai_proxy_mw._proxy import AIProxy, ProxyOptions, of, refuse_by_route, require_by_route
from ai_proxy_mw._rounds import Rounds
from ai_proxy_mw._under_way import UnderWay, respond

if TYPE_CHECKING:
    from typing import Unpack

    from ai_proxy_mw._identity import Identity
    from ai_proxy_mw._terms import Terms
    from ai_proxy_mw._types import ASGIApp, Handler, Message, RawHeaders, Receive, Scope, Send


class AIProxyMiddleware:
    """Serves the proxy under its prefix and leaves everything else to `app`.

    Give it `proxy=` or the arguments of `AIProxy`. Without an app it can be mounted or served
    alone; everything outside the prefix is then 404.
    """

    def __init__(
        self,
        app: ASGIApp | None = None,
        *,
        proxy: AIProxy | None = None,
        **options: Unpack[ProxyOptions],
    ) -> None:
        self.app: ASGIApp = app or _alone
        self._host = app
        self.proxy = of(proxy, options)
        refuse_by_route(self.proxy)
        self._rounds = Rounds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path, root = scope["path"], scope.get("root_path", "")
            rest = below(self.proxy.prefix, path, root)
            handle, stopping = self.proxy.handle, self.proxy.stopping
            page = self.proxy.dashboard
            if rest is None and page is not None:
                rest = below(page.prefix, path, root)
                if rest is not None:
                    handle = stopping = page.handle
            if rest is not None or self._host is None:
                call = _Call(self.proxy, self._rounds, scope, rest, receive, send)
                call.request.app = self._host
                await call.run(handle, stopping)
                return
        elif scope["type"] == "lifespan":
            receive, send = self._stopping(receive), self._closing(send)
        await self.app(scope, receive, send)

    def _stopping(self, receive: Receive) -> Receive:
        """Lets the calls under way come to their end before the app's own shutdown begins."""
        stop = self.proxy.terms.stop

        async def forward() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                stop.reset()
                stop.listen()  # by now the server has its handlers
            else:
                stop.begin()
                await stop.idle()
            return message

        return forward

    def _closing(self, send: Send) -> Send:
        """Closes the proxy's connections when the app has finished its shutdown."""

        async def forward(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self.proxy.aclose()
            await send(message)

        return forward


class RouteDoor:
    """Takes the calls that routes of an ASGI app hand over, and with them who is calling."""

    def __init__(self, proxy: AIProxy) -> None:
        require_by_route(proxy)
        self.proxy = proxy
        self._rounds = Rounds()

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        path: str,
        identified: str | Identity | None = None,
        refusal: Exception | None = None,
    ) -> None:
        """Answer one call; `path` is what follows the prefix.

        `identified` and `refusal` are what the app's route made out; see `Request`.
        """
        call = _Call(self.proxy, self._rounds, scope, path, receive, send)
        call.request.hand_over(identified, refusal)
        await call.run(self.proxy.handle, self.proxy.stopping)


class _Call:
    """One request from its scope to the last byte of its answer."""

    __slots__ = ("_proxy", "_send", "_watch", "request")

    def __init__(
        self,
        proxy: AIProxy,
        rounds: Rounds,
        scope: Scope,
        rest: str | None,
        receive: Receive,
        send: Send,
    ) -> None:
        headers: RawHeaders = scope["headers"]
        request_id, length = read_head(headers)
        patience = proxy.upstream.timeouts.body
        body = RequestBody(_puller(receive), length, proxy.max_body, patience)
        peer = scope.get("client")
        self._proxy = proxy
        self._send = send
        if not proxy.terms.stop.met:
            proxy.terms.stop.meet()
        self._watch = _Watch(proxy.terms, receive, body)
        rounds.join(self._watch)
        self.request = Request(
            scope["method"],
            None if is_tricky(scope.get("raw_path") or b"") else rest,
            scope["query_string"],
            headers,
            body,
            proxy.client_of(peer[0] if peer else None, headers),
            request_id,
            run_sync,
            scope,
        )

    async def run(self, handle: Handler, stopping: Handler) -> None:
        watch = self._watch
        try:
            response = await respond(self.request, watch, self._proxy.terms, handle, stopping)
            await deliver(response, self._start, self._write, watch)
        except (ClientGone, Truncated):
            return  # the server sees an answer without its end, and closes the connection
        except asyncio.CancelledError:
            if not watch.caused_cancel():
                raise
        finally:
            watch.off()
            note = self.request.note
            if note is not None:
                note.finish(self.request, watch.error)

    # Not coroutines of their own: what the server's `send` gives is awaited as it is.

    def _start(self, response: Response) -> Awaitable[None]:
        if self._proxy.terms.stop.deadline is not None:
            self._say_goodbye(response)
        return self._send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": response.headers,
            }
        )

    def _write(self, chunk: bytes, last: bool) -> Awaitable[None]:
        if last:
            # The server reports the end of the answer as a leaving, too.
            self._watch.stop_listening()
        return self._send({"type": "http.response.body", "body": chunk, "more_body": not last})

    def _say_goodbye(self, response: Response) -> None:
        """Have the next call on this connection go to a process that stays (RFC 9112, 9.6)."""
        scope = self.request.scope
        # HTTP/2 has no such header, and its peers take it for a fault.
        if scope is not None and scope.get("http_version", "1.1").startswith("1"):
            response.headers = [*response.headers, (b"connection", b"close")]


def _puller(receive: Receive) -> Pull:
    # A closure, and no method of the call: the call holds the body, and a circle of the two
    # would wait for the garbage collector after every request.
    async def pull() -> tuple[bytes, bool]:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message.get("body", b""), not message.get("more_body", False)

    return pull


class _Watch(UnderWay):
    """Hears when the caller leaves.

    Until the body has come, reading it tells; from then on somebody must listen. That costs a
    task, so it begins only when an answer takes longer than a cached or refused one does.
    """

    __slots__ = ("_listener", "_receive")

    def __init__(self, terms: Terms, receive: Receive, body: RequestBody) -> None:
        super().__init__(terms, body)
        self._receive: Receive | None = receive
        self._listener: asyncio.Task[None] | None = None

    def look(self, now: float) -> None:
        if self._receive is None or self.body is None or self._task is None:
            return
        if self._write is not None or self.body.arrived:
            self._listener = self._task.get_loop().create_task(self._listen(self._receive))
            self._receive = None
        else:
            self.body.check(now)

    def stop_listening(self) -> None:
        self._receive = None
        if self._listener is not None:
            self._listener.cancel()

    def off(self) -> None:
        # The rounds still hold this for a moment; what the call has used shall not wait for them.
        self._receive = None
        if self._listener is not None:
            self._listener.cancel()
        super().off()

    async def _listen(self, receive: Receive) -> None:
        # What may still come of a body was not wanted: the answer is on its way already.
        while (await receive())["type"] != "http.disconnect":
            pass
        self.leave()


async def _alone(scope: Scope, receive: Receive, send: Send) -> None:
    """What is not HTTP, where no app stands behind the proxy to take it."""
    await receive()
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "websocket.close"})
