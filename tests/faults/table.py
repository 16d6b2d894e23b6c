"""The fault matrix: what becomes of each fault. Tests hold it, and the docs are written from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tests.faults.answers import ASKED

Ends = Literal["whole", "event", "cut"]
"""As a whole answer; with an error event as its last; or without an end."""


class Charge(NamedTuple):
    """What a budget is charged: in words, and in tokens in and out."""

    words: str
    input: int
    output: int

    @property
    def tokens(self) -> int:
        return self.input + self.output

    @property
    def micro_usd(self) -> int:
        return self.input + 2 * self.output


NOTHING = Charge("nothing", 0, 0)
QUESTION = Charge("the question", ASKED, 0)
REPORTED = Charge("as reported", 10, 5)


TEXT = Charge("the question and the text that came", ASKED, 3)  # of the first event


OWN_PLACES = ("patient", "quick", "cooling", "cooling long")
"""Places of which each form has its own. A key that gets 429 is left alone for some time, so what
plays that has proxies of its own.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a caller sees, and what it costs.

    code: of the error that we tell; None where the upstream's answer passes as it came.
    by_second: whether it is the answer of the second upstream.
    """

    status: int
    code: str | None = None
    ends: Ends = "whole"
    charged: Charge
    by_second: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A fault, and what becomes of it.

    plays: its name among the plays of the upstream; None where nothing gets so far.
    at: the place that the proxy sends to, before " json" and " stream" where each has its own.
    kept: whether it comes on a connection that has carried a call before.
    json, stream: the outcomes; None where the fault is none in that form.
    second_json, second_stream: with a second upstream that is well; as without it where None.
    httpx_json, httpx_stream: with an httpx client, where that leaves no choice but another
        outcome; `why` says for which reason.
    heavy: seconds of work, so that only few of its cells are tested every day.
    httpx_at: the place with an httpx client, where it needs another.
    within: seconds that it may take at most, on a busy machine.
    """

    group: str
    fault: str
    plays: str | None
    json: Outcome | None
    stream: Outcome | None
    at: str = "patient"
    httpx_json: Outcome | None = None
    httpx_stream: Outcome | None = None
    why: str = ""
    second_json: Outcome | None = None
    second_stream: Outcome | None = None
    heavy: bool = False
    kept: bool = False
    httpx_at: str | None = None
    within: float = 5.0

    def place(self, sender: str, form: str, *, second: bool = False) -> str:
        """Which of a house's places is asked."""
        at = (sender == "httpx" and self.httpx_at) or self.at
        place = f"{at} {form}" if at in OWN_PLACES else at
        return f"second {place} {form}" if second else place

    def outcome(self, sender: str, form: str, *, second: bool = False) -> Outcome | None:
        if second:
            other = self.second_json if form == "json" else self.second_stream
            if other is not None:
                return other
        if sender == "httpx":
            other = self.httpx_json if form == "json" else self.httpx_stream
            if other is not None:
                return other
        return self.json if form == "json" else self.stream


def told(status: int, code: str, charged: Charge = QUESTION) -> Outcome:
    """An error of ours before anything has left."""
    return Outcome(status=status, code=code, charged=charged)


def cut(charged: Charge) -> Outcome:
    return Outcome(status=200, ends="cut", charged=charged)


def event(code: str, charged: Charge) -> Outcome:
    return Outcome(status=200, code=code, ends="event", charged=charged)


def passes(charged: Charge, status: int = 200) -> Outcome:
    return Outcome(status=status, charged=charged)


UNREACHABLE = told(502, "upstream_unreachable", NOTHING)
UNCONNECTED = told(504, "upstream_timeout", NOTHING)
DISCONNECTED = told(502, "upstream_disconnected")
UNREADABLE = told(502, "upstream_bad_response")
LATE = told(504, "upstream_timeout")
AS_IT_CAME = passes(REPORTED)

BY_SECOND = Outcome(status=200, charged=REPORTED, by_second=True)

CONNECTING = "No connection"
BROKEN = "The connection breaks"
RULES = "Against the rules of HTTP"
TOLD = "Errors that the upstream tells"
ODD = "Status 200, and something is odd"
SILENT = "Silence"
MUCH = "Much"


def _same(
    group: str,
    fault: str,
    plays: str | None,
    outcome: Outcome,
    *,
    second: Outcome | None = None,
    **rest: Any,
) -> Case:
    """The same in both forms."""
    return Case(
        group=group,
        fault=fault,
        plays=plays,
        json=outcome,
        stream=outcome,
        second_json=second,
        second_stream=second,
        **rest,
    )


TABLE = [
    _same(
        CONNECTING, "the connection is refused", None, UNREACHABLE, at="closed", second=BY_SECOND
    ),
    _same(
        CONNECTING, "nobody answers the connection", None, UNCONNECTED, at="deaf", second=BY_SECOND
    ),
    _same(
        CONNECTING,
        "TLS: the certificate is for another host",
        None,
        UNREACHABLE,
        at="other host",
        second=BY_SECOND,
    ),
    _same(
        CONNECTING,
        "TLS: the certificate has expired",
        None,
        UNREACHABLE,
        at="expired",
        second=BY_SECOND,
    ),
    _same(
        CONNECTING,
        "TLS: nobody answers the greeting",
        None,
        UNCONNECTED,
        at="no greeting",
        second=BY_SECOND,
    ),
    _same(BROKEN, "accepts and closes", "accepts and closes", DISCONNECTED),
    _same(BROKEN, "reads the request and closes", "reads the request and closes", DISCONNECTED),
    _same(
        BROKEN,
        "the same on a connection that was kept",
        "reads the request and closes",
        DISCONNECTED,
        kept=True,
    ),
    _same(BROKEN, "resets before the head", "resets before the head", DISCONNECTED),
    _same(BROKEN, "closes in the middle of the head", "closes in the head", DISCONNECTED),
    Case(
        group=BROKEN,
        fault="resets behind the head",
        plays="resets behind the head",
        json=DISCONNECTED,
        stream=event("upstream_disconnected", QUESTION),
        second_stream=DISCONNECTED,
    ),
    Case(
        group=BROKEN,
        fault="resets between two events",
        plays="resets between two events",
        json=cut(QUESTION),
        stream=event("upstream_disconnected", TEXT),
    ),
    Case(
        group=BROKEN,
        fault="resets in the middle of a chunk",
        plays="resets in a chunk",
        json=cut(QUESTION),
        stream=cut(TEXT),
    ),
    Case(
        group=BROKEN,
        fault="resets after the last byte, before the end mark",
        plays="resets before the end mark",
        json=cut(REPORTED),
        stream=event("upstream_disconnected", REPORTED),
    ),
    Case(
        group=RULES,
        fault="a `Content-Length` too short",
        plays="a length too short",
        json=passes(QUESTION),
        stream=passes(TEXT),
    ),
    _same(RULES, "a `Content-Length` too long", "a length too long", cut(REPORTED)),
    Case(
        group=RULES,
        fault="the first chunk has no size",
        plays="a bad first chunk",
        json=UNREADABLE,
        stream=event("upstream_bad_response", QUESTION),
        second_stream=UNREADABLE,
    ),
    Case(
        group=RULES,
        fault="a later chunk has no size",
        plays="a bad later chunk",
        json=cut(QUESTION),
        stream=event("upstream_bad_response", TEXT),
    ),
    _same(RULES, "no HTTP at all", "no HTTP", UNREADABLE),
    _same(RULES, "status 101, which was not asked for", "another protocol", UNREADABLE),
    _same(RULES, "a head without end", "a head without end", UNREADABLE),
    _same(RULES, "some interim answers (1xx)", "some 1xx", AS_IT_CAME),
    _same(
        RULES,
        "a storm of interim answers",
        "a storm of 1xx",
        UNREADABLE,
        httpx_at="quick",
        httpx_json=LATE,
        httpx_stream=LATE,
        why="httpx hides them from us, so that only `first_byte` ends it",
    ),
    *(
        _same(TOLD, name, name, passes(NOTHING, int(name[:3])), second=BY_SECOND, at=at)
        for name, at in (
            ("500", "patient"),
            ("502", "patient"),
            ("503", "patient"),
            ("503 with Retry-After", "patient"),
            ("429", "cooling"),
            ("429 with Retry-After", "cooling long"),
        )
    ),
    _same(TOLD, "an HTML page with 502", "a page", passes(NOTHING, 502), second=BY_SECOND),
    _same(ODD, "an empty body", "an empty 200", passes(QUESTION)),
    _same(ODD, "no valid JSON", "no JSON", passes(QUESTION)),
    Case(group=ODD, fault="events that end in CR LF", plays="CRLF", json=None, stream=AS_IT_CAME),
    Case(group=ODD, fault="events that end in CR", plays="CR", json=None, stream=AS_IT_CAME),
    _same(ODD, "one byte in each chunk, UTF-8 split", "byte by byte", AS_IT_CAME),
    Case(group=ODD, fault="a line of 2 MiB", plays="a giant line", json=None, stream=AS_IT_CAME),
    Case(
        group=ODD,
        fault="no newline behind the last event",
        plays="no last newline",
        json=None,
        stream=AS_IT_CAME,
    ),
    Case(
        group=ODD,
        fault="an error event as the first",
        plays="an error event first",
        json=None,
        stream=passes(QUESTION),
        second_stream=BY_SECOND,
    ),
    Case(
        group=ODD,
        fault="an error event later",
        plays="an error event later",
        json=None,
        stream=passes(TEXT),
    ),
    _same(SILENT, "before the head", "silence", LATE, at="quick"),
    _same(SILENT, "in the middle of the head", "silence in the head", LATE, at="quick"),
    Case(
        group=SILENT,
        fault="behind the head",
        plays="silence behind the head",
        at="quick",
        json=LATE,
        stream=event("upstream_timeout", QUESTION),
        second_stream=LATE,
    ),
    Case(
        group=SILENT,
        fault="behind the first event",
        plays="silence behind the first event",
        at="quick",
        json=cut(QUESTION),
        stream=event("upstream_timeout", TEXT),
    ),
    Case(
        group=SILENT,
        fault="in the middle of an event",
        plays="silence in an event",
        at="quick",
        json=cut(QUESTION),
        stream=cut(TEXT),
    ),
    _same(SILENT, "the head drips, byte by byte", "a dripping head", LATE, at="quick"),
    Case(
        group=SILENT,
        fault="the body drips, byte by byte",
        plays="a dripping body",
        at="quick",
        json=cut(QUESTION),
        stream=cut(QUESTION),
        second_stream=LATE,
    ),
    Case(
        group=MUCH,
        fault="an answer of 100 MiB",
        plays="huge",
        json=AS_IT_CAME,
        stream=AS_IT_CAME,
        heavy=True,
        within=60.0,
    ),
    Case(
        group=MUCH,
        fault="a gzip bomb of 100 MiB for a caller who takes no gzip",
        plays="bomb",
        json=AS_IT_CAME,
        stream=AS_IT_CAME,
        heavy=True,
        within=60.0,
    ),
]
