"""Writes docs/reliability.md out of the fault matrix: `python -m tests.faults.write_docs`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tests.faults.table import NOTHING, TABLE, Case, Charge, Outcome

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

_INTRO = """\
# What becomes of a call when the upstream fails

Three rules decide each row below.

- **Nothing has left for the caller:** it gets a plain error with a status of its own, in OpenAI's
  shape. That of an answer in JSON is looked at until its first bytes are there; an event stream is
  passed on from its head or, where another upstream could answer, from its first content.
- **Bytes are out:** a second answer is never glued to the first. An event stream that stands
  between two events ends with `event: error` and the same error object as its data, and without
  `[DONE]`. Whatever else is under way is cut: the connection closes without the end mark, which
  every client reports.
- **What the upstream says itself passes as it came**, byte for byte, be it an error, an odd event
  stream or no JSON at all.

A client that sees no end mark, or an `error` event, has no whole answer.

Our own errors have the `type` `upstream_error` and one of these codes. Their text is the same for
everybody: no host, path, key or traceback is in it.

| code | status | meaning |
|---|--:|---|
| `upstream_unreachable` | 502 | no connection: refused, no such name, a bad certificate |
| `upstream_disconnected` | 502 | the connection broke |
| `upstream_bad_response` | 502 | what came is no HTTP, or cannot be unpacked |
| `upstream_timeout` | 504 | one of the [time-outs](configuration.md) has passed |

In the tables, *charged* is what budgets of tokens and money are settled to (see
[limits](limits.md#what-is-counted-when)): **nothing**; what is **reported** by the upstream; the
estimate of the **question**; or that and the estimate of the **text** that came. *With a second*
is the same fault where a second upstream is well, of a lower priority, and each is asked once:
"by the second" means that the caller gets its whole answer, and that only this is charged. Where
it is the same, something had left for the caller, or the first upstream had the whole request and
may have worked on it: such a call is sent again only if the owner says so (`Retry(unsafe=...)`) or
it carries an `Idempotency-Key`, the caller's or that of `Upstream(idempotency_key=True)`.

Each row is a test (`tests/faults`): at the ASGI door and the WSGI door, with the transport of our
own and with an httpx client, in JSON and as a stream. Each also shows that the upstream was asked
once, that the call ended within its time-outs, that no connection, task, reservation or place of
`concurrent` was left over, and that the next call gets a right answer. Where the two transports
cannot do the same, both are stated. This page is made of that table by
`python -m tests.faults.write_docs`.
"""

_HEAD = """\
| fault | JSON | stream | charged | with a second |
|---|---|---|---|---|
"""


def page() -> str:
    return "".join(_page())


def _page() -> Iterator[str]:
    yield _INTRO
    for group, cases in groupby(TABLE, lambda case: case.group):
        yield f"\n## {group}\n\n{_HEAD}"
        yield from map(_row, cases)


def _row(case: Case) -> str:
    cells = [case.fault, _of_form(case, "json"), _of_form(case, "stream"), _charged(case)]
    return f"| {' | '.join([*cells, _with_second(case)])} |\n"


def _of_form(case: Case, form: str) -> str:
    own, library = (case.outcome(sender, form) for sender in ("native", "httpx"))
    if own is None or library is None:
        return "-"
    if own == library:
        return _said(own)
    return f"{_said(own)}; with httpx {_said(library)}: {case.why}"


def _said(outcome: Outcome) -> str:
    if outcome.ends == "event":
        return f"{outcome.status}, then an error event `{outcome.code}`"
    if outcome.ends == "cut":
        return f"{outcome.status}, then cut"
    if outcome.code is None:
        return f"{outcome.status}, as it came"
    return f"{outcome.status} `{outcome.code}`"


def _charged(case: Case) -> str:
    json, stream = (_charge(case.outcome("native", form)) for form in ("json", "stream"))
    if json is None or stream is None or json == stream:
        return (json or stream or NOTHING).words
    return f"JSON: {json.words}; stream: {stream.words}"


def _charge(outcome: Outcome | None) -> Charge | None:
    return None if outcome is None else outcome.charged


def _with_second(case: Case) -> str:
    """Where it changes anything."""
    forms = [form for form in ("json", "stream") if case.outcome("native", form) is not None]
    said = [_second(case, form) for form in forms]
    if len(set(said)) == 1:
        return said[0]
    return "; ".join(
        f"{'JSON' if form == 'json' else form}: {words}"
        for form, words in zip(forms, said, strict=True)
    )


def _second(case: Case, form: str) -> str:
    outcome = case.outcome("native", form, second=True)
    assert outcome is not None
    if outcome.by_second:
        return "by the second"
    return "the same" if outcome == case.outcome("native", form) else _said(outcome)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
