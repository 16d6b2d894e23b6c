"""What is measured: the rows of the table."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

Server = Literal["uvicorn", "gthread", "sync", "litellm"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One application under one server.

    `module` has `make(upstream)`; `yardstick` and `floor` name the rows it is compared with;
    `needs` the module that must be installed for it; `exact` whether the answer passes unchanged.
    """

    name: str
    about: str
    module: str = ""
    server: Server = "uvicorn"
    kind: Literal["json", "sse"] = "json"
    yardstick: str = "sketch"
    floor: str = "floor-json"
    threads: int = 32
    needs: str | None = None
    exact: bool = True

    @property
    def available(self) -> bool:
        if self.needs is None:
            return True
        parent = self.needs.partition(".")[0]  # one that is not there cannot be looked into
        return find_spec(parent) is not None and find_spec(self.needs) is not None


ROWS = (
    Row(name="floor", about="uvicorn, hello world", module="floor"),
    Row(name="floor-json", about="uvicorn, body read and decoded", module="floor_json"),
    Row(name="sketch", about="yardstick: a bare relay, no promises", module="sketch"),
    Row(name="bare", about="the proxy, ASGI door", module="bare"),
    Row(name="limit", about="one limit of requests in memory", module="one_limit"),
    Row(
        name="limits",
        about="an identity, limits of requests and tokens in memory",
        module="two_limits",
    ),
    Row(name="judged", about="each request judged", module="judged"),
    Row(name="records", about="each call counted with its use and cost", module="records"),
    Row(
        name="corridor",
        about="identity, one limit of requests, judged, counted with use and cost",
        module="corridor",
    ),
    Row(name="cache-miss", about="the same, each answer kept in memory", module="cache_miss"),
    Row(name="cache-hit", about="the same, each answer from memory", module="cache_hit"),
    Row(
        name="prometheus",
        about="the corridor, with metrics for Prometheus",
        module="prometheus",
        needs="prometheus_client",
    ),
    Row(
        name="otel",
        about="the corridor, with spans and metrics of OpenTelemetry",
        module="otel",
        needs="opentelemetry.sdk",
    ),
    Row(name="bare-fastapi", about="the proxy inside FastAPI", module="bare_fastapi"),
    Row(name="httpx", about="the proxy over httpx.AsyncClient", module="over_httpx"),
    Row(
        name="wsgi-floor",
        about="gunicorn gthread, body read and decoded",
        module="wsgi_floor",
        server="gthread",
        floor="wsgi-floor",
    ),
    Row(
        name="wsgi",
        about="the proxy, WSGI door, gunicorn gthread",
        module="wsgi",
        server="gthread",
        floor="wsgi-floor",
    ),
    Row(
        name="wsgi-corridor",
        about="the same with the whole corridor",
        module="wsgi_corridor",
        server="gthread",
        floor="wsgi-floor",
    ),
    Row(
        name="litellm",
        about="LiteLLM proxy",
        server="litellm",
        needs="litellm",
        exact=False,
    ),
    Row(
        name="floor-sse",
        about="uvicorn, events of its own",
        module="floor_sse",
        kind="sse",
        yardstick="sketch-sse",
        floor="floor-sse",
    ),
    Row(
        name="sketch-sse",
        about="yardstick",
        module="sketch",
        kind="sse",
        yardstick="sketch-sse",
        floor="floor-sse",
    ),
    Row(
        name="bare-sse",
        about="the proxy, ASGI door",
        module="bare",
        kind="sse",
        yardstick="sketch-sse",
        floor="floor-sse",
    ),
    Row(
        name="corridor-sse",
        about="the whole corridor, use observed",
        module="corridor",
        kind="sse",
        yardstick="sketch-sse",
        floor="floor-sse",
    ),
    Row(
        name="wsgi-sse",
        about="the proxy, WSGI door, gunicorn gthread",
        module="wsgi",
        server="gthread",
        kind="sse",
        threads=64,  # one thread for each of the 50 streams
        yardstick="sketch-sse",
        floor="floor-sse",
    ),
)


def named(names: list[str]) -> list[Row]:
    """The rows of these names, in the table's order. Raises ValueError for an unknown one."""
    known = {row.name for row in ROWS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no row {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [row for row in ROWS if row.name in names]
