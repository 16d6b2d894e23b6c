"""The upstream and the proxies before it, each in a process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.load.callers import look
from tests.load.upstream import Log
from tests.servers import serve_process, uvicorn_command

_PATIENCE = 15.0


class House:
    def __init__(self, port: int, upstream: int) -> None:
        self.port = port
        self._upstream = upstream

    async def log(self) -> Log:
        """What the upstream has seen. `connections` are those of others than who asks."""
        log = msgspec.convert(await look(self._upstream, "/log"), Log)
        log.connections -= 1
        return log

    async def inside(self, *subjects: str) -> dict[str, Any]:
        found: dict[str, Any] = await look(self.port, f"/inside?{','.join(subjects)}")
        return found

    async def at_rest(self, *subjects: str) -> dict[str, Any]:
        """How it is inside once nothing is under way; as it is after a while if that never is."""
        until = time.monotonic() + _PATIENCE
        while True:
            found = await self.inside(*subjects)
            if is_at_rest(found) or time.monotonic() > until:
                return found


def is_at_rest(found: dict[str, Any]) -> bool:
    held = [*found["in_flight"].values(), *found["busy"].values(), *found["probes"].values()]
    return not any(held) and not found["reserved"] and not found["settling"]


@contextlib.contextmanager
def serve_house(redis: str | None = None) -> Iterator[House]:
    def upstream_command(port: int) -> list[str]:
        return ["tests.load.upstream", "--port", str(port)]

    with serve_process(upstream_command) as upstream:
        env = {"LOAD_UPSTREAM": upstream.url, **({"LOAD_REDIS": redis} if redis else {})}
        command = uvicorn_command("tests.load.app:make", "--factory", "--loop", "asyncio")
        with serve_process(command, env) as proxies:
            yield House(_port(proxies.url), _port(upstream.url))


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
