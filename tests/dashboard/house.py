"""A dashboard over numbers that a test decides, and a door to it."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ai_proxy_mw._hook_threads import run_sync
from ai_proxy_mw._http import Request, Response
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw._paths import below
from ai_proxy_mw.accounting.record import Record
from ai_proxy_mw.dashboard.app import Dashboard, dashboard_of
from ai_proxy_mw.limiting.closest import Closest
from ai_proxy_mw.metrics.base import By, StatsPoint, StatsReport, StatsRow, Window
from ai_proxy_mw.routing.standing import UpstreamStats
from ai_proxy_mw.stores.guard import StoreDown

PARTS: dict[Window, tuple[int, int]] = {"1h": (60, 60), "24h": (24, 3600), "30d": (30, 86_400)}


class Told:
    """Sources that say what they were given; `down` is what their store is like."""

    def __init__(self) -> None:
        self.rows: dict[By, dict[str, StatsRow]] = {}
        self.total = StatsRow()
        self.other: StatsRow | None = None
        self.points: list[StatsRow] = []
        self.records: list[Record] = []
        self.lanes: list[UpstreamStats] = []
        self.close: list[Closest] = []
        self.down = False
        self.now = 1_800_000_000.0
        self.asked: list[tuple[Window, By]] = []

    async def stats(self, window: Window, by: By) -> StatsReport:
        self.asked.append((window, by))
        self._check()
        parts, length = PARTS[window]
        start = self.now - parts * length
        rows = self.points or [StatsRow()] * parts
        points = [
            StatsPoint(time=start + index * length, row=rows[index % len(rows)])
            for index in range(parts)
        ]
        return StatsReport(
            window=window,
            by=by,
            since=start,
            until=self.now,
            total=self.total,
            rows=self.rows.get(by, {}),
            other=self.other,
            series=points,
        )

    async def recent(self, most: int) -> list[Record]:
        self._check()
        return self.records[:most]

    def upstreams(self) -> list[UpstreamStats]:
        return self.lanes

    def limits(self) -> list[Closest]:
        return self.close

    def _check(self) -> None:
        if self.down:
            raise StoreDown


def signed_in(request: Request) -> str | None:
    return request.cookies.get("admin")


def make(told: Told, identify: Any = signed_in) -> Dashboard:
    return dashboard_of("/ai", identify, told, api="/v1")


async def _nothing() -> tuple[bytes, bool]:
    return b"", True


def request(path: str | None, query: bytes = b"", *, method: str = "GET", cookie: str = "admin=me"):  # type: ignore[no-untyped-def]
    return Request(
        method=method,
        path=path,
        query=query,
        headers=[(b"cookie", cookie.encode())],
        body=RequestBody(_nothing, declared=0, limit=1, empty=True),
        client="::1",
        request_id="req_1",
        run_sync=run_sync,
    )


def door(dashboard: Dashboard) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """An ASGI app of the dashboard alone."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        asked = request(below("/ai", scope["path"]), scope["query_string"], method=scope["method"])
        asked.raw_headers = scope["headers"]
        response = await dashboard.handle(asked)
        head = {"status": response.status, "headers": response.headers}
        await send({"type": "http.response.start", **head})
        await send({"type": "http.response.body", "body": await whole(response)})

    return app


async def whole(response: Response) -> bytes:
    return b"".join([piece async for piece in response.body])


def lively(told: Told, *, seed: int = 7) -> Told:
    """Numbers like those of a shop of middle size, always the same but for the time."""
    chance = random.Random(seed)
    told.now = time.time() // 60 * 60 + 60
    told.points = [_minute(chance, index) for index in range(60)]
    told.total = _together(told.points)
    for by, shares in SHARES.items():
        told.rows[by] = {name: _part(told.total, share, chance) for name, share in shares.items()}
    told.records = [call(chance, told.now - 60 - index * 1.7, index) for index in range(50)]
    told.lanes = [
        _lane("openai#1", "closed", 412, 3, in_flight=7),
        _lane("openai#2", "cooling", 388, 11, in_flight=2, opened=1, wait=18.0),
        _lane("anthropic", "closed", 171, 1, in_flight=4),
        _lane("local-gpu", "open", 20, 14, opened=3, wait=42.0),
    ]
    told.close = [
        _close("maria@shop.example", "2.50/day", "usd", 2_500_000, 0, 31_000),
        _close("10.4.0.17", "60/minute", "requests", 60, 2, 24, per="ip"),
        _close("search-service", "500000/hour", "tokens", 500_000, 41_200, 1260),
        _close("nightly-report", "8", "concurrent", 8, 1, None),
    ]
    return told


SHARES: dict[By, dict[str, float]] = {
    "model": {
        "gpt-4.1": 0.41,
        "claude-sonnet-4.5": 0.22,
        "gemini-2.5-flash": 0.17,
        "deepseek-v3.2": 0.11,
        "text-embedding-3-small": 0.06,
        "in-house-llama": 0.03,
    },
    "subject": {
        "search-service": 0.34,
        "maria@shop.example": 0.19,
        "nightly-report": 0.15,
        "jonas@shop.example": 0.12,
        "mobile-app": 0.11,
        "amira@shop.example": 0.09,
    },
    "endpoint": {"POST /chat/completions": 0.72, "POST /responses": 0.2, "POST /embeddings": 0.08},
    "upstream": {"openai": 0.6, "anthropic": 0.25, "local-gpu": 0.15},
}


def _minute(chance: random.Random, index: int) -> StatsRow:
    requests = int(70 + 34 * math.sin(index / 8) + chance.random() * 22)
    trouble = 1.0 if 37 <= index <= 41 else 0.0
    errors = int(chance.random() * 2.2 + trouble * 11)
    hits = int(requests * (0.24 + chance.random() * 0.16))
    mean = 1.1 + 0.3 * math.sin(index / 5) + chance.random() * 0.25 + trouble * 1.4
    return StatsRow(
        requests=requests,
        errors=errors,
        refused=int(chance.random() * 3),
        cancelled=int(chance.random() * 2),
        hits=hits,
        misses=requests - hits,
        input_tokens=requests * 820,
        cached_input_tokens=requests * 190,
        output_tokens=requests * 260,
        cost=(requests - hits) * 4300,
        saved=hits * 4100,
        saved_tokens=hits * 1000,
        mean=mean,
        p50=mean * 0.7,
        p95=mean * 2.4 + chance.random() * 0.5,
        p99=mean * 4,
    )


COUNTED = (
    "requests", "errors", "refused", "cancelled", "hits", "misses", "input_tokens",
    "cached_input_tokens", "output_tokens", "cost", "saved", "saved_tokens",
)  # fmt: skip


def _together(rows: list[StatsRow]) -> StatsRow:
    sums = {name: sum(getattr(row, name) for row in rows) for name in COUNTED}
    return StatsRow(**sums, unpriced=132, mean=1.27, p50=0.874, p95=3.42, p99=6.18)


def _part(total: StatsRow, share: float, chance: random.Random) -> StatsRow:
    sums = {name: int(getattr(total, name) * share) for name in COUNTED}
    p95 = 1.2 + chance.random() * 3
    if share < 0.05:
        sums.update(cost=0, saved=0)
    return StatsRow(**sums, unpriced=132 if share < 0.05 else 0, mean=p95 / 3, p95=p95)


def _lane(
    name: str,
    state: Any,
    calls: int,
    failures: int,
    *,
    in_flight: int = 0,
    opened: int = 0,
    wait: float = 0.0,
) -> UpstreamStats:
    return UpstreamStats(
        name=name,
        state=state,
        calls=calls,
        failures=failures,
        opened=opened,
        in_flight=in_flight,
        wait=wait,
    )


def _close(
    who: str, limit: str, of: str, amount: int, left: int, until: float | None, per: str = "subject"
) -> Closest:
    return Closest(
        limit=limit,
        of=of,
        per=per,
        who=who,
        amount=amount,
        remaining=left,
        resets=None if until is None else time.time() + until,
    )


def call(chance: random.Random, when: float, number: int) -> Record:
    """A call of some kind or other."""
    model = chance.choices(list(SHARES["model"]), list(SHARES["model"].values()))[0]
    subject = chance.choices(list(SHARES["subject"]), list(SHARES["subject"].values()))[0]
    upstream = "anthropic" if model.startswith("claude") else "openai"
    more: dict[str, Any] = {
        "status": 200, "upstream": upstream, "attempts": 1, "cache": "miss",
        "input_tokens": chance.randrange(40, 4000), "output_tokens": chance.randrange(10, 900),
        "measured": True, "cost": chance.randrange(300, 42_000), "total": 0.3 + chance.random() * 4,
        "model_used": model,
    }  # fmt: skip
    odd = number % 11
    if odd == 3:
        more.update(cache="hit", upstream=None, attempts=0, cost=0, total=0.004, input_tokens=0)
        more.update(output_tokens=0, saved=8100)
    elif odd == 5:
        more.update(status=429, outcome="refused", error="rate_limit_exceeded", upstream=None)
        more.update(attempts=0, cost=0, input_tokens=0, output_tokens=0, total=0.001, cache=None)
    elif odd == 7:
        more.update(status=502, outcome="failed", error="upstream_disconnected", attempts=3)
        more.update(cost=0, input_tokens=0, output_tokens=0, model_used=None)
    elif odd == 9:
        more.update(outcome="cancelled", measured=False, stream=True)
    elif odd == 10:
        more.update(model_used="gpt-4.1-mini", attempts=2, cost=None)
    return Record(
        time=when,
        request_id=f"req_{number}",
        subject=subject,
        endpoint="POST /chat/completions",
        model=model,
        **more,
    )


ARTEFACTS = Path(__file__).parents[2] / "var" / "dashboard"
"""Where the tests in a browser leave their pictures; git takes no notice of it."""
