"""The load: keep-alive connections in a closed loop, each answer compared with the right one.

Runs as a process of its own and prints one line of JSON. It reads the CPU clock of the processes
under test itself, so that connecting and warming up are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from typing import TYPE_CHECKING, Literal, cast

import httptools
import msgspec
import uvloop

from benchmarks.cpu import cpu_seconds
from benchmarks.payloads import (
    ANSWER,
    HOST,
    MARK,
    QUESTION,
    request,
    stream_question,
    streamed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_PATH = "/v1/chat/completions"
_WARM_UP = 400  # requests in all, so that the interpreter has specialised the hot path
_GRACE = 30.0  # seconds after the end for answers that are still to come


class Job(msgspec.Struct, kw_only=True, frozen=True):
    """One measurement. `pids` are the processes whose CPU time counts."""

    port: int
    pids: list[int]
    connections: int
    kind: Literal["json", "sse"] = "json"
    requests: int = 4000
    seconds: float = 2.0
    chunks: int = 100
    pace: float = 0.02
    exact: bool = True
    sdk: bool = False


class Sample(msgspec.Struct, kw_only=True):
    """What came of it. `units` are answered requests, or events for streams; times in seconds."""

    requests: int
    errors: int
    units: int
    cpu: float
    wall: float
    p50: float
    p99: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the processes under test for each unit."""
        return self.cpu / max(self.units, 1) * 1e6

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.units / self.wall


class Phase:
    """Requests that go out on all connections until their number or their time is up."""

    def __init__(self, payload: bytes, expected: bytes, *, exact: bool, count: int) -> None:
        self.payload = payload
        self._expected = expected
        self._exact = exact
        self._left = count
        self._end = float("inf")
        self._busy = 0
        self._idle = asyncio.get_running_loop().create_future()
        self.errors = 0
        self.latencies: list[float] = []

    async def run(self, clients: list[Client], seconds: float) -> float:
        """Returns the seconds it took."""
        start = time.perf_counter()
        self._end = start + seconds
        self._busy = len(clients)
        for client in clients:
            client.start(self)
        try:
            async with asyncio.timeout(seconds + _GRACE):
                await self._idle
        except TimeoutError:
            self.errors += self._busy
        return time.perf_counter() - start

    def another(self) -> bool:
        """Whether one more request is to go out."""
        self._left -= 1
        return self._left >= 0 and time.perf_counter() < self._end

    def finished(self) -> None:
        """A connection has sent its last request and got the answer."""
        self._busy -= 1
        if not self._busy and not self._idle.done():
            self._idle.set_result(None)

    def answered(self, status: int, body: bytes, latency: float) -> None:
        right = body == self._expected if self._exact else self._expected in body
        if status == 200 and right:
            self.latencies.append(latency)
        else:
            self.failed(f"status {status}, {len(body)} bytes: {body[:200]!r}")

    def failed(self, why: str) -> None:
        self.errors += 1
        if self.errors == 1:
            print(f"load: first wrong answer: {why}", file=sys.stderr)


class Client(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self) -> None:
        self._phase: Phase | None = None
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._phase is not None:
            phase, self._phase = self._phase, None
            phase.failed(f"connection lost: {exc!r}")
            phase.finished()

    def start(self, phase: Phase) -> None:
        self._phase = phase
        if self._lost:
            self.connection_lost(None)
        else:
            self._next(phase)

    def _next(self, phase: Phase) -> None:
        if not phase.another():
            self._phase = None
            phase.finished()
            return
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._sent_at = time.perf_counter()
        self._transport.write(phase.payload)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        phase = self._phase
        assert phase is not None
        latency = time.perf_counter() - self._sent_at
        phase.answered(self._parser.get_status_code(), b"".join(self._pieces), latency)
        # Not from within the parser, which the next request replaces.
        asyncio.get_running_loop().call_soon(self._next, phase)


async def connect(port: int, count: int) -> list[Client]:
    """Open the connections a few at a time: a full accept queue costs seconds."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for start in range(0, count, 64):
        pairs = await asyncio.gather(
            *(
                loop.create_connection(Client, HOST, port)
                for _ in range(start, min(count, start + 64))
            )
        )
        clients.extend(client for _, client in pairs)
    return clients


def _warm_up(job: Job) -> Phase:
    count = max(_WARM_UP, 2 * job.connections)
    if not job.exact:
        count = 2 * job.connections  # rows that are too slow for more
    return _json_phase(job, count)


def _json_phase(job: Job, count: int) -> Phase:
    payload = request("POST", _PATH, QUESTION, sdk=job.sdk)
    return Phase(payload, ANSWER if job.exact else MARK, exact=job.exact, count=count)


def _measured(job: Job) -> Phase:
    if job.kind == "json":
        return _json_phase(job, job.requests)
    asked = stream_question(chunks=job.chunks, pace=job.pace)
    payload = request("POST", _PATH, asked, sdk=job.sdk)
    return Phase(payload, streamed(job.chunks), exact=True, count=job.connections)


async def perform(job: Job, clock: Callable[[list[int]], float] = cpu_seconds) -> Sample:
    """Connect, warm up, measure."""
    clients = await connect(job.port, job.connections)
    warm_up = _warm_up(job)
    await warm_up.run(clients, seconds=10 * job.seconds)
    phase = _measured(job)
    gc.collect()
    gc.disable()
    before = clock(job.pids)
    wall = await phase.run(clients, job.seconds)
    cpu = clock(job.pids) - before
    latencies = sorted(phase.latencies) or [0.0]
    answered = len(phase.latencies)
    return Sample(
        requests=answered + phase.errors,
        errors=phase.errors + warm_up.errors,
        units=answered if job.kind == "json" else answered * job.chunks,
        cpu=cpu,
        wall=wall,
        p50=latencies[len(latencies) // 2],
        p99=latencies[len(latencies) * 99 // 100],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", help="a Job as JSON")
    job = msgspec.json.decode(parser.parse_args().job, type=Job)
    print(msgspec.json.encode(uvloop.run(perform(job))).decode())


if __name__ == "__main__":
    main()
