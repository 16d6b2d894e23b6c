"""The doors and transports of the fault matrix, each a real server with proxies inside."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, NamedTuple, TypeVar

import httpx
from fastapi import FastAPI
from flask import Flask

from ai_proxy_mw import (
    AIProxy,
    AIProxyMiddleware,
    AIProxyWSGIMiddleware,
    Limit,
    Price,
    Prices,
    Timeouts,
    Upstream,
)
from ai_proxy_mw._loop import loop_thread
from ai_proxy_mw._retry import Retry
from ai_proxy_mw.accounting.estimate import Estimate
from ai_proxy_mw.upstream.native import NativeTransport
from tests.faults.answers import ASKED
from tests.servers import serve_asgi, serve_wsgi

T = TypeVar("T")

Sender = NativeTransport | httpx.AsyncClient

KEY = "sk-upstream-secret"

PATIENT = Timeouts()
QUICK = Timeouts(first_byte=0.5, idle=0.5, total=1.5)
DEAF = Timeouts(connect=0.5)
"""Seconds, for upstreams that never get done; kept by a busy machine, too."""

LIMITS = [
    Limit("1000000/day", of="tokens", strategy="fixed"),
    Limit("10/day", of="usd", strategy="fixed"),
    Limit("8", of="concurrent"),
]
PRICES = Prices({"m": Price(1.0, 2.0)})
"""Micro-dollars of a token: one in, two out, so that money tells the two apart."""


def make_proxy(
    base_urls: Sequence[str], sender: Sender, *, prefix: str, timeouts: Timeouts
) -> AIProxy:
    """A proxy in front of these upstreams; the one place that knows how it is told of them."""
    sending: dict[str, Any] = (
        {"transport": sender} if isinstance(sender, NativeTransport) else {"client": sender}
    )
    return AIProxy(
        upstreams=[
            Upstream(
                name=f"upstream-{number}",
                base_url=base_url,
                api_key=KEY,
                timeouts=PATIENT if number else timeouts,
                priority=number,
                **sending,
            )
            for number, base_url in enumerate(base_urls)
        ],
        retry=Retry(attempts=1, budget=None),  # who has failed is not asked again
        circuit=False,  # each call for itself: it must not matter what became of those before
        prefix=prefix,
        identify=lambda request: request.headers.get("x-user"),
        limits=LIMITS,
        prices=PRICES,
        estimate=lambda call: Estimate(input_tokens=ASKED, output_tokens=50),
    )


class Place(NamedTuple):
    """Where a proxy sends, and with how much patience."""

    base_urls: tuple[str, ...]
    timeouts: Timeouts


class House:
    """An app behind a real server, with one proxy for each place, and all of them one sender."""

    def __init__(
        self,
        url: str,
        proxies: Mapping[str, AIProxy],
        sender: Sender,
        loop: Callable[[], asyncio.AbstractEventLoop],
    ) -> None:
        self.url = url
        self.proxies = proxies
        self._sender = sender
        self._loop = loop
        self._resident = self.tasks()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine in the loop that serves the calls."""
        return asyncio.run_coroutine_threadsafe(work, self._loop()).result(10)

    def tasks(self) -> int:
        """How many tasks the loop has, besides the one that counts them."""

        async def count() -> int:
            return len(asyncio.all_tasks()) - 1

        return self.run(count())

    def extra_tasks(self) -> int:
        """Those that were not there before the first call."""
        return self.tasks() - self._resident

    def connections(self) -> tuple[int, int]:
        """How many connections the transport has open, and how many of them are in use."""

        async def count() -> tuple[int, int]:
            if isinstance(self._sender, NativeTransport):
                opened = self._sender.open_connections
                return opened, opened - self._sender.idle_connections
            pool: Any = self._sender._transport
            kept = pool._pool.connections
            return len(kept), len([each for each in kept if not each.is_idle()])

        return self.run(count())

    def spent(self, place: str, who: str) -> tuple[int, int, int, int]:
        """Tokens and micro-dollars that were charged; places taken; and what is reserved."""
        standings = self.run(self.proxies[place].limits.status(who))
        tokens, usd, places = (each.limit.amount - each.remaining for each in standings)
        return tokens, usd, places, sum(each.reserved for each in standings)


@contextmanager
def _asgi(
    proxies: Mapping[str, AIProxy], sender: Sender
) -> Iterator[tuple[str, Callable[[], asyncio.AbstractEventLoop]]]:
    loops: list[asyncio.AbstractEventLoop] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loops.append(asyncio.get_running_loop())
        yield
        await sender.aclose()

    app = FastAPI(lifespan=lifespan)
    for proxy in proxies.values():
        app.add_middleware(AIProxyMiddleware, proxy=proxy)
    with serve_asgi(app) as url:
        yield url, lambda: loops[0]


@contextmanager
def _wsgi(
    proxies: Mapping[str, AIProxy], sender: Sender
) -> Iterator[tuple[str, Callable[[], asyncio.AbstractEventLoop]]]:
    app = Flask("house")
    for proxy in proxies.values():
        app.wsgi_app = AIProxyWSGIMiddleware(  # type: ignore[method-assign]
            app.wsgi_app, proxy=proxy
        )
    with serve_wsgi(app) as url:
        yield url, lambda: loop_thread().loop
    loop_thread().run(sender.aclose())


DOORS: dict[str, Callable[..., AbstractContextManager[Any]]] = {"ASGI": _asgi, "WSGI": _wsgi}


def _native(trust: ssl.SSLContext) -> Sender:
    return NativeTransport(ssl_context=trust)


def _client(trust: ssl.SSLContext) -> Sender:
    # As the transport's documentation wants it for upstreams that cannot be trusted.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(verify=trust, limits=limits, trust_env=False)


SENDERS = {"native": _native, "httpx": _client}


@contextmanager
def open_house(
    door: str, kind: str, places: Mapping[str, Place], trust: ssl.SSLContext
) -> Iterator[House]:
    sender = SENDERS[kind](trust)
    proxies = {
        name: make_proxy(
            place.base_urls, sender, prefix=f"/{name.replace(' ', '-')}", timeouts=place.timeouts
        )
        for name, place in places.items()
    }
    with DOORS[door](proxies, sender) as (url, loop):
        yield House(url, proxies, sender, loop)
