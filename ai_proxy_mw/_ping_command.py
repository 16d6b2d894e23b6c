"""`python -m ai_proxy_mw ping`: how long each step to an upstream takes, and where it fails."""

from __future__ import annotations

import argparse
import json
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ai_proxy_mw._base_url import MODEL, can_stand_in_path, place_of
from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._ping import STEPS, TOKENS, Probe, Resolve, Row, Target, Tools, resolve
from ai_proxy_mw._terminal import plain

Say = Callable[[str], None]

_MOST_REQUESTS = 100
_MOST_SECONDS = 300
_MOST_TEXT = 200

_HEAD = ("upstream", "model", "connection", "ok", *STEPS)


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--upstream", action="append", required=True, help="a base URL; may be given again"
    )
    command.add_argument(
        "--model",
        action="append",
        default=[],
        help="asked for a few tokens, which cost money; may be given again; if none, GET /models",
    )
    command.add_argument(
        "--api-key-env",
        action="append",
        default=[],
        metavar="NAME",
        help="the variable that holds the key; of several upstreams one for each, '-' for no key",
    )
    command.add_argument("-n", type=_count, default=5, help="how often each is asked (5)")
    command.add_argument(
        "--timeout", type=_seconds, default=30.0, help="seconds for one request (30)"
    )
    command.add_argument("--json", action="store_true", help="print JSON in place of a table")


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= _MOST_REQUESTS:
        raise argparse.ArgumentTypeError(f"write a number from 1 to {_MOST_REQUESTS}")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", text) or not 0 < float(text) <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"write seconds, {_MOST_SECONDS} at most")
    return float(text)


async def run(
    options: argparse.Namespace,
    say: Say,
    warn: Say,
    *,
    environ: Mapping[str, str] = os.environ,
    resolve: Resolve = resolve,
    trust: ssl.SSLContext | None = None,
) -> int:
    """Ask and show; the exit code: 1 if a request has failed. Raises ConfigurationError."""
    targets = _targets(options, environ)
    cost = f" for at most {TOKENS} tokens each, which cost a little" if options.model else ""
    warn(f"Sends {2 * options.n * len(targets)} requests{cost}, one after the other.")
    tools = Tools(resolve, trust or _trust(targets), options.timeout)
    rows = [row for target in targets for row in await Probe(target, tools).ask(options.n)]
    if options.json:
        say(json.dumps([_as_json(row) for row in rows], indent=2))
    else:
        for line in _table(rows):
            say(line)
    return 1 if any(row.errors for row in rows) else 0


def _targets(options: argparse.Namespace, environ: Mapping[str, str]) -> list[Target]:
    names = options.api_key_env or ["-"] * len(options.upstream)
    if len(names) != len(options.upstream):
        # Else one provider would be shown the key of another.
        raise ConfigurationError(
            "--api-key-env: write one for each --upstream, in their order; '-' for one without"
        )
    return [
        _target(upstream, _key(name, environ), model)
        for upstream, name in zip(options.upstream, names, strict=True)
        for model in options.model or [None]
    ]


def _key(name: str, environ: Mapping[str, str]) -> str | None:
    if name == "-":
        return None
    key = environ.get(name, "")
    if not re.fullmatch("[!-~]+", key):
        raise ConfigurationError(
            "--api-key-env: write the name of a variable that holds a key; "
            "that which was named does not"  # it may be the key itself, by mistake
        )
    return key


def _target(upstream: str, key: str | None, model: str | None) -> Target:
    try:
        place = place_of(upstream)
    except ConfigurationError as error:
        raise ConfigurationError(plain(f"--upstream: {error}")) from None
    if MODEL in place.path and not (model and can_stand_in_path(model)):
        raise ConfigurationError(f"--upstream: {MODEL} needs a --model that can stand in a path")
    if model is not None and re.search("[\ud800-\udfff]", model):
        raise ConfigurationError("--model: write text")  # it was no UTF-8
    return Target(upstream=upstream, place=place, key=key, model=model)


def _trust(targets: Sequence[Target]) -> ssl.SSLContext:
    if any(target.place.origin.scheme == "https" for target in targets):
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; the other reads a large file


def _as_json(row: Row) -> dict[str, Any]:
    spreads = {step: row.spread(step) for step in STEPS}
    return {
        "upstream": row.target.upstream,
        "model": row.target.model,
        "connection": row.connection,
        "requests": row.count,
        "ok": len(row.times),
        "errors": {text[:_MOST_TEXT]: count for text, count in row.errors.items()},
        "milliseconds": {
            step: spread and dict(zip(("median", "min", "max"), map(_ms, spread), strict=True))
            for step, spread in spreads.items()
        },
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    lines = [_HEAD, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    yield _line(lines[0], widths)
    for row, cells in zip(rows, lines[1:], strict=True):
        yield _line(cells, widths)
        for text, count in row.errors.items():
            yield f"  failed {count} x {plain(text[:_MOST_TEXT])}"
    yield "Milliseconds: the median (least-most). The first byte is counted from the request on."


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(map(str.ljust, cells, widths)).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    target = row.target
    model = "GET /models" if target.model is None else plain(target.model)
    times = [_text(row.spread(step)) for step in STEPS]
    ok = f"{len(row.times)}/{row.count}"
    return (plain(target.upstream), model, row.connection, ok, *times)


def _text(spread: tuple[float, float, float] | None) -> str:
    if spread is None:
        return "-"
    middle, least, most = (f"{seconds * 1000:.1f}" for seconds in spread)
    return f"{middle} ({least}-{most})"
