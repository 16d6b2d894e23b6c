"""The proxies under load, in one process, and a look inside: `GET /inside?subject,another`.

LOAD_UPSTREAM: the URL of tests.load.upstream. LOAD_REDIS: where the limits of `/soak/v1` are.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from typing import Any

import msgspec
import psutil

from ai_proxy_mw import (
    AIProxy,
    AIProxyMiddleware,
    Circuit,
    Limit,
    Request,
    Retry,
    Timeouts,
    Upstream,
)
from ai_proxy_mw._http import Response
from ai_proxy_mw._loop import SETTLING
from ai_proxy_mw._types import ASGIApp, Receive, Scope, Send
from ai_proxy_mw.accounting.estimate import Estimate
from ai_proxy_mw.limiting.limiter import Limiter
from ai_proxy_mw.schema.call import Call
from ai_proxy_mw.testing import FAKE_BASE_URL
from ai_proxy_mw.upstream.base import Outbound
from ai_proxy_mw.upstream.native import NativeTransport
from tests.load.upstream import Ask

FIRST_BYTE = 0.3
"""Seconds that an upstream has to begin, and to go on."""

EXPECTED_INPUT = 7
EXPECTED = 1007
"""Tokens that a call is expected to use, and what of it goes in."""

OPEN_FOR = 60.0
NOWHERE = "http://127.0.0.1:9"  # the port of `discard`, where nobody listens

_PATIENCE = Timeouts(connect=1.0, first_byte=FIRST_BYTE, idle=FIRST_BYTE, total=10.0)
_LONG = Timeouts(first_byte=10.0, idle=10.0)  # a busy machine is no fault of those who are well
_EVERYTHING = Retry(attempts=1, unsafe={"reset", "timeout", "bad_response"})


class Counting(NativeTransport):
    """Counts what the proxy sends, by who calls."""

    def __init__(self) -> None:
        super().__init__(max_connections=200)
        self.sends: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()

    async def send(self, outbound: Outbound) -> Response:
        assert isinstance(outbound.body, bytes)
        who = msgspec.json.decode(outbound.body, type=Ask).user.partition(":")[0]
        self.sends[who] += 1
        try:
            return await super().send(outbound)
        except asyncio.CancelledError:
            self.cancelled[who] += 1
            raise


def _upstream(name: str, plan: str, base: str, priority: int) -> Upstream:
    return Upstream(
        name=name,
        base_url=f"{base}/{name}/{plan}",
        api_key=f"key-{name}",
        priority=priority,
        timeouts=_LONG if plan == "well" else _PATIENCE,
        transport=Counting(),
    )


def _pair(first: str, second: str, base: str, prefix: str, **options: Any) -> AIProxy:
    upstreams = [_upstream("a", first, base, 0), _upstream("b", second, base, 1)]
    options.setdefault("anonymous", True)
    return AIProxy(upstreams=upstreams, prefix=prefix, retry=_EVERYTHING, **options)


def _identify(request: Request) -> str | None:
    return request.headers.get("x-caller")


def _estimate(call: Call) -> Estimate:
    return Estimate(input_tokens=EXPECTED_INPUT, output_tokens=EXPECTED - EXPECTED_INPUT)


def _proxies() -> dict[str, AIProxy]:
    base = os.environ.get("LOAD_UPSTREAM", FAKE_BASE_URL)
    shaky = Circuit(calls=200)  # 35 % of failures are no reason to leave an upstream alone
    quick = Circuit(calls=20, open_for=OPEN_FOR)
    # Places that could not be freed while the store was away are held for a minute: there are many.
    places = Limit("100000", of="concurrent")
    limits = [
        Limit("9000000000/year", of="tokens", strategy="fixed"),
        places,
    ]
    return {
        "well": _pair("well", "well", base, "/well/v1"),
        "faulty": _pair("faulty", "well", base, "/faulty/v1", circuit=shaky),
        "refuse": _pair("x", "x", NOWHERE, "/refuse/v1", circuit=quick),
        "stall": _pair("stall", "stall", base, "/stall/v1", circuit=quick),
        "error": _pair("error", "error", base, "/error/v1", circuit=quick),
        "soak": _pair(
            "faulty",
            "well",
            base,
            "/soak/v1",
            circuit=shaky,
            anonymous=False,
            identify=_identify,
            limits=limits,
            limits_storage=os.environ.get("LOAD_REDIS"),
            estimate=_estimate,
        ),
    }


async def inside(proxies: dict[str, AIProxy], subjects: list[str]) -> dict[str, Any]:
    """What must be as it was when all is quiet again."""
    gc.collect()
    process = psutil.Process()
    lanes = {
        f"{name}/{lane.name}": lane for name, proxy in proxies.items() for lane in proxy._ways.lanes
    }
    transports = {key: lane.provider.transport for key, lane in lanes.items()}
    limiter = proxies["soak"].limits
    book = limiter.books.here()
    return {
        "fds": process.num_fds(),
        "rss": process.memory_info().rss,
        "tasks": len(asyncio.all_tasks()),
        "settling": sum(task.get_name() == SETTLING for task in asyncio.all_tasks()),
        "reserved": sum(limiter.reserved.values()),
        "down": book.guard is not None and book.guard.is_open,
        "in_flight": {key: lane.in_flight for key, lane in lanes.items()},
        "probes": {key: len(lane.breaker._probes) for key, lane in lanes.items()},
        "busy": {
            key: each.open_connections - each.idle_connections
            for key, each in transports.items()
            if isinstance(each, Counting)
        },
        "sends": {
            key: each.sends for key, each in transports.items() if isinstance(each, Counting)
        },
        "cancelled": {
            key: each.cancelled for key, each in transports.items() if isinstance(each, Counting)
        },
        "counted": {who: await counted(limiter, who) for who in subjects},
    }


async def counted(limiter: Limiter, who: str) -> dict[str, int]:
    """What somebody has used by the store, and by the counts of this process beside it."""
    found = {}
    for limit, base in limiter._countable(who, None, None):
        for place, book in (("", limiter.books.here()), (" here", limiter.books.instead())):
            standing = await book.ledger.standing(limit, base)
            found[limit.of + place] = limit.amount - standing.remaining
    return found


def make() -> ASGIApp:
    proxies = _proxies()
    app: Any = _Inside(proxies)
    for proxy in proxies.values():
        app = AIProxyMiddleware(app, proxy=proxy)
    return app  # type: ignore[no-any-return]


class _Inside:
    def __init__(self, proxies: dict[str, AIProxy]) -> None:
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        subjects = scope["query_string"].decode().split(",")
        body = msgspec.json.encode(await inside(self._proxies, list(filter(None, subjects))))
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
