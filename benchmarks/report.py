"""Prints a run as Markdown."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.budget import verdicts
from benchmarks.cpu import cores
from benchmarks.results import Cell, Results, Spread, of, ratio
from benchmarks.rows import Row

_PACKAGES = (
    "ai_proxy_mw",
    "uvicorn",
    "uvloop",
    "httptools",
    "gunicorn",
    "fastapi",
    "httpx",
    "litellm",
)

_BUDGET_HEAD = (
    "| budget | measured (least to most of the rounds) | at most | |",
    "|---|--:|--:|---|",
)


def machine() -> dict[str, str]:
    """What the figures depend on."""
    packages = [f"{name} {found}" for name in _PACKAGES if (found := _version(name))]
    pinned = "one for the server, the rest for mock and load" if cores()[0] else "not pinned"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{_cpu_model()}, {psutil.cpu_count()} cores ({pinned})",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(packages),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def report(rows: list[Row], results: Results, *, rounds: int) -> str:
    """The whole run: the machine, a table for each number of connections, the budget."""
    lines = [f"- {key}: {value}" for key, value in machine().items()]
    lines += [f"- rounds: {rounds}, interleaved; medians, with least and most in brackets", ""]
    for kind, unit in (("json", "request"), ("sse", "event")):
        chosen = [row for row in rows if row.kind == kind]
        names = {row.name for row in chosen}
        for connections in sorted({cell.connections for cell in results if cell.row in names}):
            lines += [f"### CPU for each {unit}, {connections} connections", ""]
            lines += [*_table(chosen, results, connections, unit), ""]
    found = list(verdicts(results))
    if found:
        lines += ["### Budget", "", *_BUDGET_HEAD, *found]
    return "\n".join(lines)


def _table(rows: list[Row], results: Results, connections: int, unit: str) -> Iterator[str]:
    yield (
        f"| row | what | CPU µs/{unit} | x sketch | x floor "
        f"| {unit}s/s | p50 ms | p99 ms | errors |"
    )
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for row in rows:
        samples = results.get(Cell(row.name, connections))
        if not samples:
            continue
        against = [
            _times(ratio(results, Cell(row.name, connections), Cell(other, connections)))
            for other in (row.yardstick, row.floor)
        ]
        figures = [
            of(samples, lambda sample: sample.cpu_us).show(),
            *against,
            f"{of(samples, lambda sample: sample.rate).median:,.0f}",
            f"{of(samples, lambda sample: sample.p50 * 1000).median:,.2f}",
            f"{of(samples, lambda sample: sample.p99 * 1000).median:,.2f}",
            str(sum(sample.errors for sample in samples)),
        ]
        yield f"| `{row.name}` | {row.about} | {' | '.join(figures)} |"


def _times(spread: Spread | None) -> str:
    return "-" if spread is None else spread.show(2)
