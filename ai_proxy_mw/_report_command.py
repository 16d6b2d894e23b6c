"""`python -m ai_proxy_mw report`: what the models have cost, and would have cost elsewhere."""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import msgspec

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._terminal import plain
from ai_proxy_mw.accounting.prices import DEFAULT_PRICES, Price, Prices, cost
from ai_proxy_mw.accounting.usage import Usage
from ai_proxy_mw.metrics.base import StatsReport, StatsRow, Window
from ai_proxy_mw.stores.guard import StoreDown

if TYPE_CHECKING:
    from ai_proxy_mw.stores.base import CacheStore

Say = Callable[[str], None]

UNKNOWN = "unknown"

_WIDEST = 40
"""Characters of a model's name in a table."""

_COMPARED = 4
"""Models that the second table has a column for: those with most tokens."""


class Advice(msgspec.Struct, kw_only=True):
    """What `--json` prints.

    elsewhere: for each model with tokens, micro-dollars that the same ones cost on the others.
    """

    report: StatsReport
    elsewhere: dict[str, dict[str, int]]


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("where", help="the directory, or a URL: redis://, redis+cluster://, …")
    command.add_argument("--name", default="default", help="of the app, as AIProxy was given it")
    command.add_argument("--window", choices=get_args(Window), default="24h")
    command.add_argument("--prices", help="a .toml or .json file: dollars per million tokens")
    command.add_argument("--json", action="store_true", help="all of it, in micro-dollars")


async def run(options: argparse.Namespace, say: Say) -> None:
    """Print the report. Raises ConfigurationError, and StoreDown for a store that fails."""
    table = {} if options.prices is None else _prices_in(Path(options.prices))
    report = await _read(options)
    advice = Advice(report=report, elsewhere=_elsewhere(report, table))
    if options.json:
        say(json.dumps(msgspec.to_builtins(advice)))  # of ASCII alone: names are callers'
    else:
        for line in _lines(advice):
            say(line)


async def _read(options: argparse.Namespace) -> StatsReport:
    from ai_proxy_mw.metrics.stats import Stats  # noqa: PLC0415 - the other commands do without

    try:
        store = _store(options.where)
        stats = Stats(name=options.name, store=store)
        try:
            report = await stats.read(options.window, "model")
        finally:
            await stats.aclose()
            await store.aclose()
    except ConfigurationError:
        raise
    except Exception as error:
        # Not the text: a client library may put a password there.
        raise StoreDown(f"the store does not answer: {type(error).__name__}") from error
    if not report.whole:
        raise StoreDown("the store does not answer")
    return report


def _store(where: str) -> CacheStore:
    if "://" in where:
        from ai_proxy_mw.stores.redis_cache import RedisCache  # noqa: PLC0415 - of the extra [redis]

        return RedisCache(where)
    from ai_proxy_mw.stores.disk_cache import DiskCache  # noqa: PLC0415 - see above

    if not Path(where, "stats", "cache.db").is_file():
        raise ConfigurationError(
            f"{plain(where)}: there are no statistics; write the directory that DiskCache was given"
        )
    return DiskCache(where)


def _prices_in(path: Path) -> dict[str, Price]:
    """Of a file like `{"my-model": {"input": 1.5, "output": 6}}`. Raises ConfigurationError."""
    try:
        text = path.read_text()
        found = tomllib.loads(text) if path.suffix == ".toml" else msgspec.json.decode(text)
        return {str(model): Price(**price) for model, price in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"--prices {plain(str(path))}: write a table for each model, like "
            f'{{"my-model": {{"input": 1.5, "output": 6}}}} ({type(error).__name__})'
        ) from error


def _elsewhere(report: StatsReport, table: Mapping[str, Price]) -> dict[str, dict[str, int]]:
    prices = Prices(table)
    known = sorted({*table, *DEFAULT_PRICES})
    found: dict[str, dict[str, int]] = {}
    for model, row in report.rows.items():
        if row.input_tokens or row.output_tokens:
            usage = Usage(row.input_tokens, row.output_tokens, row.cached_input_tokens)
            priced = [(name, prices.of(name)) for name in known if name != model]
            found[model] = {name: cost(price, usage) for name, price in priced if price is not None}
    return found


# Tables


def _lines(advice: Advice) -> Iterable[str]:
    report = advice.report
    if not report.total.requests and not report.total.input_tokens:
        yield f"no calls in the last {report.window}; is it another app's --name?"
        return
    yield f"Spend by model, last {report.window}"
    yield ""
    yield from _table(_SPEND, [*_spent(report)])
    yield ""
    yield _savings(report.total)
    if advice.elsewhere:
        yield ""
        yield "What the same tokens would have cost on other models"
        yield ""
        yield from _table(*_compared(advice))


_SPEND = ("model", "requests", "input", "cached", "output", "cost")


def _spent(report: StatsReport) -> Iterable[tuple[str, ...]]:
    rows = sorted(report.rows.items(), key=lambda item: (-item[1].cost, -item[1].requests))
    for model, row in rows:
        yield _spent_on(_shown(model), row)
    if report.other is not None:
        yield _spent_on("(all others)", report.other)
    yield _spent_on("(total)", report.total)


def _spent_on(name: str, row: StatsRow) -> tuple[str, ...]:
    counts = (row.requests, row.input_tokens, row.cached_input_tokens, row.output_tokens)
    return (name, *(f"{count:,}" for count in counts), _dollars(row.cost, row.unpriced))


def _savings(total: StatsRow) -> str:
    asked = total.hits + total.misses
    if not asked:
        return "The cache was not asked."
    saved = _dollars(total.saved, total.saved_unpriced)
    return (
        f"The cache answered {total.hits:,} of {asked:,} calls ({total.hit_rate:.0%}) "
        f"and saved {saved} and {total.saved_tokens:,} tokens."
    )


def _compared(advice: Advice) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    rows = advice.report.rows
    most = sorted(
        advice.elsewhere, key=lambda model: -rows[model].input_tokens - rows[model].output_tokens
    )[:_COMPARED]
    others = sorted({name for model in most for name in advice.elsewhere[model]})
    own = ("as it was", *(_dollars(rows[model].cost, rows[model].unpriced) for model in most))
    lines = [
        (_shown(name), *(_dollars_on(advice.elsewhere[model].get(name)) for model in most))
        for name in others
    ]
    return ("tokens of", *map(_shown, most)), [own, *lines]


def _dollars_on(micro: int | None) -> str:
    return "" if micro is None else _dollars(micro, 0)


def _dollars(micro: int, unpriced: int) -> str:
    """What is not known is said to be so, and is no 0."""
    if unpriced and not micro:
        return UNKNOWN
    shown = f"${micro / 1_000_000:,.{2 if micro >= 10_000_000 else 4}f}"
    return f"{shown} + {UNKNOWN}" if unpriced else shown


def _shown(model: str) -> str:
    """A name that a caller has chosen, for a terminal."""
    text = plain(model) if model else "(none)"
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterable[str]:
    """The first column to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()
