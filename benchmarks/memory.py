"""Memory of the proxy's process under large bodies and many streams, and what its import costs."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import psutil

from benchmarks.cpu import family
from benchmarks.load import Job
from benchmarks.payloads import (
    ANSWER,
    EVENT,
    FORM_END,
    FORM_START,
    FORM_TYPE,
    HOST,
    head,
    question,
    request,
    stream_question,
)
from benchmarks.processes import Served, run_on_load_core, serving, upstream
from benchmarks.results import Spread, spread
from benchmarks.rows import Row

_MB = 2**20
_BLOB = 200 * _MB
_BODIES = 20
_STREAMS = 1000
_PATIENCE = 120.0

_UVICORN = Row(name="uvicorn", about="", module="roomy")
_SYNC = Row(name="gunicorn sync", about="", module="wsgi_roomy", server="sync")


def _resident(pid: int) -> int:
    """Bytes of memory of a server and its workers."""
    return sum(psutil.Process(one).memory_info().rss for one in family(pid))


@dataclass
class Growth:
    """Samples the memory of a server while something happens to it."""

    pid: int
    before: int = 0
    most: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.most = max(self.most, _resident(self.pid))

    @property
    def megabytes(self) -> float:
        return (self.most - self.before) / _MB


@contextlib.contextmanager
def _growth(pid: int) -> Iterator[Growth]:
    growth = Growth(pid, before=_resident(pid))
    growth.most = growth.before
    thread = threading.Thread(target=growth._watch)  # noqa: SLF001 - started only here
    thread.start()
    try:
        yield growth
    finally:
        growth._stop.set()  # noqa: SLF001
        thread.join()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Status and length of the body of an answer that has a Content-Length."""
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    lengths = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
    return int(lines[0].split()[1]), lengths[0]


async def _upload(port: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    length = len(FORM_START) + _BLOB + len(FORM_END)
    writer.write(head("POST", "/v1/files", length, content_type=FORM_TYPE) + FORM_START)
    block = b"x" * 65_536
    for _ in range(_BLOB // len(block)):
        writer.write(block)
        await writer.drain()
    writer.write(FORM_END)
    status, size = await _answer(reader)
    answer = json.loads(await reader.readexactly(size))
    writer.close()
    if (status, answer) != (200, {"bytes": length}):
        raise RuntimeError(f"upload: status {status}, {answer}")


async def _download(port: int) -> None:
    """Reads more slowly than the mock writes, so that what is buffered shows."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request("GET", f"/v1/files/file-bench/content?{_BLOB}"))
    status, length = await _answer(reader)
    left = length
    while left and (piece := await reader.read(262_144)):
        left -= len(piece)
        await asyncio.sleep(0.001)
    writer.close()
    if (status, length, left) != (200, _BLOB, 0):
        raise RuntimeError(f"download: status {status}, {left} of {length} bytes missing")


async def _bodies(port: int) -> None:
    """Several large questions in flight at once, held by the mock for a while."""
    payload = request("POST", "/v1/chat/completions", question(_MB, bench={"delay": 0.5}))

    async def one() -> None:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(payload)
        status, length = await _answer(reader)
        right = await reader.readexactly(length) == ANSWER
        writer.close()
        if status != 200 or not right:
            raise RuntimeError(f"large question: status {status}")

    await asyncio.gather(*(one() for _ in range(_BODIES)))


async def _hold_streams(served: Served) -> float:
    """Megabytes that idle streams take once each has given its first event."""
    before = _resident(served.pid)
    asked = stream_question(chunks=2, pace=600.0)
    payload = request("POST", "/v1/chat/completions", asked)

    async def one() -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection(HOST, served.port)
        writer.write(payload)
        await reader.readuntil(EVENT)
        return writer

    writers = []
    for _ in range(_STREAMS // 50):
        writers += await asyncio.gather(*(one() for _ in range(50)))
    held = _resident(served.pid) - before
    for writer in writers:
        writer.close()
    return held / _MB


_WORK = {"upload": _upload, "download": _download, "bodies": _bodies}


def _grown(row: Row, url: str, work: str) -> str:
    """By how much the row's server grows while another process does the work."""
    with serving(row, url) as served:
        command = [sys.executable, "-m", "benchmarks.memory", work, str(served.port)]
        try:
            with _growth(served.pid) as growth:
                run_on_load_core(command, _PATIENCE)
        except subprocess.CalledProcessError:
            return "**failed**; the reason is on stderr"
    return f"grows by {growth.megabytes:.1f} MB"


_IMPORT = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
import ai_proxy_mw
seconds = time.perf_counter() - start
new = set(sys.modules) - before
roots = {name.partition(".")[0] for name in new} - set(sys.stdlib_module_names)
import json
print(json.dumps([seconds, len(new), sorted(name for name in roots if name[0] != "_")]))
"""


def _imports() -> tuple[Spread, int, list[str]]:
    """Milliseconds of the import, how many modules it loads, which packages they are of."""
    runs = []
    for _ in range(6):
        command = [sys.executable, "-c", _IMPORT]
        runs.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    timed = runs[1:]  # the first may still compile
    return spread([run[0] * 1000 for run in timed]), runs[0][1], runs[0][2]


def _lines(url: str) -> Iterator[str]:
    blob = f"{_BLOB // _MB} MB"
    for row in (_UVICORN, _SYNC):
        for work in ("upload", "download"):
            yield f"| {blob} {work}, {row.name} | {_grown(row, url, work)} | 20 MB |"
    grown = _grown(_UVICORN, url, "bodies")
    yield f"| {_BODIES} questions of 1 MB in flight | {grown} | {2 * _BODIES} MB |"
    with serving(_UVICORN, url) as served:
        held = asyncio.run(_hold_streams(served))
    yield f"| {_STREAMS:,} idle streams | {held:.1f} MB | 40 MB |"
    took, count, packages = _imports()
    yield (
        f"| `import ai_proxy_mw` | {took.show()} ms, {count} modules "
        f"({', '.join(packages)}) | 100 ms |"
    )


def report() -> str:
    """The Markdown table of memory and import time."""
    with upstream() as url:
        return "\n".join(["| what | measured | at most |", "|---|---|--:|", *_lines(url)])


def soak(requests: int) -> str:
    """Memory before and after many requests at 32 connections."""
    with upstream() as url, serving(_UVICORN, url) as served:
        _load(served, requests // 20)  # allocator and caches settle
        before = _resident(served.pid)
        start = time.monotonic()
        _load(served, requests)
        grown = (_resident(served.pid) - before) / _MB
        return f"{requests:,} requests in {time.monotonic() - start:.0f} s: {grown:+.1f} MB"


def _load(served: Served, requests: int) -> None:
    job = Job(port=served.port, pids=served.pids, connections=32, requests=requests, seconds=3600.0)
    command = [sys.executable, "-m", "benchmarks.load", msgspec.json.encode(job).decode()]
    sample = json.loads(run_on_load_core(command, 3700))
    if sample["errors"] or sample["requests"] != requests:
        raise RuntimeError(f"load: {sample}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=sorted(_WORK))
    parser.add_argument("port", type=int)
    chosen = parser.parse_args()
    asyncio.run(_WORK[chosen.work](chosen.port))


if __name__ == "__main__":
    main()
