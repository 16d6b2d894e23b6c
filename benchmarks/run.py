"""Runs the benchmark: `python -m benchmarks.run`; see docs/performance.md for what it measures."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import memory, profiling
from benchmarks.budget import STREAMS
from benchmarks.load import Job, Sample
from benchmarks.processes import Served, allow_many_files, run_on_load_core, serving, upstream
from benchmarks.report import machine, report
from benchmarks.results import Cell, Results
from benchmarks.rows import ROWS, Row, named

_PATIENCE = 120.0  # seconds that one measurement may take in all


def _measure(row: Row, served: Served, connections: int, options: argparse.Namespace) -> Sample:
    job = Job(
        port=served.port,
        pids=served.pids,
        connections=connections,
        kind=row.kind,
        requests=options.requests,
        seconds=options.seconds,
        exact=row.exact,
        sdk=options.sdk_headers,
    )
    encoded = msgspec.json.encode(job).decode()
    output = run_on_load_core([sys.executable, "-m", "benchmarks.load", encoded], _PATIENCE)
    return msgspec.json.decode(output, type=Sample)


def _cells(row: Row, options: argparse.Namespace) -> list[Cell]:
    counts = [STREAMS] if row.kind == "sse" else options.connections
    return [Cell(row.name, count) for count in counts]


def measure(rows: list[Row], options: argparse.Namespace) -> Results:
    """All servers run side by side and wait; the rounds go over the rows in turn."""
    results: Results = {}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(upstream())
        servers = {row.name: stack.enter_context(serving(row, url)) for row in rows}
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
            for row in rows:
                for cell in _cells(row, options):
                    sample = _measure(row, servers[row.name], cell.connections, options)
                    results.setdefault(cell, []).append(sample)
    return results


def _write(path: Path, results: Results, options: argparse.Namespace) -> None:
    document: dict[str, Any] = {
        "machine": machine(),
        "options": {key: str(value) for key, value in vars(options).items()},
        "samples": [
            {"row": cell.row, "connections": cell.connections, **msgspec.to_builtins(sample)}
            for cell, samples in results.items()
            for sample in samples
        ],
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _rows(text: str) -> list[Row]:
    try:
        return named(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--rows", type=_rows, default=list(ROWS), help="names, comma-separated; default all")
    add("--rounds", type=int, default=5)
    add("--requests", type=int, default=4000, help="at most so many in each measurement")
    add("--seconds", type=float, default=2.0, help="no new request after this time")
    add("--connections", type=_numbers, default=[1, 32, 256], help="default 1,32,256")
    add("--sdk-headers", action="store_true", help="send the headers of the official SDK, too")
    add("--json", type=Path, metavar="FILE", help="write all samples here")
    add("--memory", action="store_true", help="measure memory and import time instead")
    add("--soak", type=int, metavar="N", help="memory before and after N requests instead")
    add("--profile", type=_rows, metavar="ROW", help="print what a row's server spends time on")
    return parser.parse_args()


def main() -> None:
    options = _options()
    allow_many_files()
    if options.memory:
        print(memory.report())
        return
    if options.soak:
        print(memory.soak(options.soak))
        return
    if options.profile:
        print(profiling.report(options.profile[0], options.requests))
        return
    rows = [row for row in options.rows if row.available]
    for row in options.rows:
        if not row.available:
            print(f"row {row.name} left out: {row.needs} is not installed", file=sys.stderr)
    results = measure(rows, options)
    print(report(rows, results, rounds=options.rounds))
    if options.json is not None:
        _write(options.json, results, options)


if __name__ == "__main__":
    main()
