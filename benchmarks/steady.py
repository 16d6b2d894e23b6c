"""A steady load: so many requests a second come, whether or not the ones before were answered.

`python -m benchmarks.steady --rate 834 --seconds 60` sends 50,000 requests a minute to one uvicorn
worker with limits, a cache that has the answer for three in ten, and validation; besides, fewer go
to the mock upstream directly, so that the same noise is in both. Each is timed from the moment it
was due, so that one that had to wait for others counts as late (coordinated omission).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import cast

import httptools
import msgspec
import uvloop

from benchmarks.cpu import cpu_seconds
from benchmarks.payloads import HOST, MARK, QUESTION, request
from benchmarks.processes import allow_many_files, run_on_load_core, serving, upstream
from benchmarks.report import machine
from benchmarks.rows import Row

_PATH = "/v1/chat/completions"
_ROW = Row(name="sustained", about="limits, cache and validation", module="sustained")
_MOST = 256  # connections of each way; a request that finds them all in use waits, and is late
_KNOWN = 40  # questions that are asked again and again
_WARM_UP = 1.0  # seconds
_GRACE = 10.0  # seconds after the last request for answers that are still to come
_SLOT = b"And the fox?"  # of a question; as long as what makes each a new one


class Job(msgspec.Struct, kw_only=True, frozen=True):
    """`pids` are the processes whose CPU time counts; rates are of requests a second."""

    port: int
    direct_port: int
    pids: list[int]
    rate: float
    direct_rate: float
    seconds: float


class Line(msgspec.Struct, kw_only=True):
    """What came of the requests that went one way; times in seconds."""

    requests: int
    errors: int
    hits: int
    connections: int
    p50: float
    p90: float
    p99: float
    worst: float


class Steady(msgspec.Struct, kw_only=True):
    """cpu: that the worker has used, in seconds; wall: how long it took."""

    proxy: Line
    direct: Line
    cpu: float
    wall: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the worker for each request."""
        return self.cpu / max(1, self.proxy.requests) * 1e6


def _payloads() -> Iterator[bytes]:
    """Three in ten of a question that was asked before, the others each of a new one."""
    numbers = count(_KNOWN)
    whole = request("POST", _PATH, QUESTION)
    for turn in count():
        known = turn * 3 % 10 < 3
        number = turn // 10 * 3 % _KNOWN + turn % 3 if known else next(numbers)
        yield whole.replace(_SLOT, b"And %07d?" % number)


class Way:
    """Requests to one port, on as many connections as are needed at a time."""

    def __init__(self, port: int, rate: float) -> None:
        self._port = port
        self._rate = rate
        self._payloads = _payloads()
        self.idle: list[Connection] = []
        self._late: deque[tuple[bytes, float]] = deque()
        self.connections = 0
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self.sent = self.errors = self.hits = 0
        self.latencies: list[float] = []

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()  # uvloop's own clock counts milliseconds
        for number in range(int(seconds * self._rate)):
            due = began + number / self._rate
            early = due - time.perf_counter()
            if early > 0:
                await asyncio.sleep(early)
            self.sent += 1
            payload = next(self._payloads)
            if self.idle:
                self.idle.pop().send(payload, due)
            elif self.connections < _MOST:
                self.connections += 1
                loop.create_task(self._on_a_new_one(payload, due))  # noqa: RUF006
            else:
                self._late.append((payload, due))
        until = time.perf_counter() + _GRACE
        while self._waiting and time.perf_counter() < until:
            await asyncio.sleep(0.01)
        self.errors += self._waiting

    @property
    def _waiting(self) -> int:
        return self.sent - self.errors - len(self.latencies)

    async def _on_a_new_one(self, payload: bytes, due: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: Connection(self), HOST, self._port)
        except OSError as error:
            self.connections -= 1
            self.failed(repr(error))
        else:
            made.send(payload, due)

    def answered(self, connection: Connection, status: int, body: bytes, latency: float) -> None:
        if self._late:
            # Not from within the parser, which the next request replaces.
            asyncio.get_running_loop().call_soon(connection.send, *self._late.popleft())
        else:
            self.idle.append(connection)
        if status == 200 and MARK in body:
            self.latencies.append(latency)
        else:
            self.failed(f"status {status}: {body[:200]!r}")

    def lost(self, connection: Connection) -> None:
        self.connections -= 1
        if connection in self.idle:
            self.idle.remove(connection)

    def failed(self, why: str) -> None:
        self.errors += 1
        if self.errors == 1:
            print(f"steady: first wrong answer: {why}", file=sys.stderr)

    def line(self) -> Line:
        found = sorted(self.latencies) or [0.0]
        at = [found[len(found) * share // 100] for share in (50, 90, 99)]
        return Line(
            requests=self.sent,
            errors=self.errors,
            hits=self.hits,
            connections=self.connections,
            p50=at[0],
            p90=at[1],
            p99=at[2],
            worst=found[-1],
        )


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._due: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._way.lost(self)
        if self._due is not None:
            self._way.failed(f"connection lost: {exc!r}")

    def send(self, payload: bytes, due: float) -> None:
        self._due = due
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._transport.write(payload)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"cache-status" and b"; hit" in value:
            self._way.hits += 1

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        assert self._due is not None
        latency = time.perf_counter() - self._due
        self._due = None
        status = self._parser.get_status_code()
        self._way.answered(self, status, b"".join(self._pieces), latency)


async def perform(job: Job, clock: Callable[[list[int]], float] = cpu_seconds) -> Steady:
    """Warm up, then both ways side by side."""
    proxy, direct = Way(job.port, job.rate), Way(job.direct_port, job.direct_rate)
    await asyncio.gather(proxy.run(_WARM_UP), direct.run(_WARM_UP))
    for way in (proxy, direct):
        way.begin()
    gc.collect()
    gc.disable()
    began, before = time.perf_counter(), clock(job.pids)
    await asyncio.gather(proxy.run(job.seconds), direct.run(job.seconds))
    wall = time.perf_counter() - began
    return Steady(proxy=proxy.line(), direct=direct.line(), cpu=clock(job.pids) - before, wall=wall)


def measure(*, rate: float, direct_rate: float, seconds: float) -> Steady:
    """Start the mock, one worker and the load, each in a process."""
    with upstream() as url, serving(_ROW, url) as served:
        job = Job(
            port=served.port,
            direct_port=int(url.rpartition(":")[2]),
            pids=served.pids,
            rate=rate,
            direct_rate=direct_rate,
            seconds=seconds,
        )
        command = [sys.executable, "-m", "benchmarks.steady", "--job"]
        output = run_on_load_core([*command, msgspec.json.encode(job).decode()], seconds + 60)
    return msgspec.json.decode(output, type=Steady)


def report(found: Steady) -> str:
    lines = [f"- {key}: {value}" for key, value in machine().items()]
    lines += ["", "| way | requests/s | errors | hits | p50 ms | p90 ms | p99 ms | most ms |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|--:|"]
    for name, line in (("proxy", found.proxy), ("direct", found.direct)):
        times = [f"{each * 1000:.2f}" for each in (line.p50, line.p90, line.p99, line.worst)]
        rate = line.requests / found.wall
        share = line.hits / max(1, line.requests)
        lines.append(f"| {name} | {rate:.0f} | {line.errors} | {share:.0%} | {' | '.join(times)} |")
    added = [
        f"{name} {(one - other) * 1000:.2f} ms"
        for name, one, other in (
            ("p50", found.proxy.p50, found.direct.p50),
            ("p99", found.proxy.p99, found.direct.p99),
        )
    ]
    busy = found.cpu / found.wall
    lines += ["", f"Added: {', '.join(added)}. CPU: {found.cpu_us:.0f} µs a request, {busy:.0%}"]
    return "\n".join(lines) + f" of a core; {found.proxy.connections} connections."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=834, help="requests a second")
    parser.add_argument("--direct-rate", type=float, default=84, help="of those without the proxy")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.job is not None:
        job = msgspec.json.decode(chosen.job, type=Job)
        print(msgspec.json.encode(uvloop.run(perform(job))).decode())
        return
    allow_many_files()
    found = measure(rate=chosen.rate, direct_rate=chosen.direct_rate, seconds=chosen.seconds)
    print(report(found))


if __name__ == "__main__":
    main()
