"""Shows where a row's server spends its time."""

from __future__ import annotations

import io
import pstats
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks.budget import STREAMS
from benchmarks.load import Job
from benchmarks.processes import run_on_load_core, serving, upstream
from benchmarks.rows import Row

_CONNECTIONS = 32
_LINES = 40


def report(row: Row, requests: int) -> str:
    """The functions with the most time of their own under load.

    cProfile makes every Python call dearer and C code not at all: read the order and the number
    of calls, and take times from the table.
    """
    with tempfile.TemporaryDirectory() as directory:
        dump = Path(directory) / "profile"
        with upstream() as url, serving(row, url, dump) as served:
            job = Job(
                port=served.port,
                pids=served.pids,
                connections=STREAMS if row.kind == "sse" else _CONNECTIONS,
                kind=row.kind,
                requests=requests,
                seconds=20.0,
                exact=row.exact,
            )
            encoded = msgspec.json.encode(job).decode()
            print(
                run_on_load_core([sys.executable, "-m", "benchmarks.load", encoded], 120).decode(),
                file=sys.stderr,
            )
        text = io.StringIO()
        stats = pstats.Stats(str(dump), stream=text)
    stats.sort_stats("tottime").print_stats(_LINES)
    return text.getvalue()
