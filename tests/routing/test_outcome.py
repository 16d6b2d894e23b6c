"""What a failure amounts to."""

from __future__ import annotations

import pytest

from ai_proxy_mw._errors import (
    StaleConnection,
    UpstreamBusy,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamsDown,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ai_proxy_mw.routing.outcome import Outcome, of_answer, of_error


def unsent(error: UpstreamError) -> UpstreamError:
    error.sent = False
    return error


@pytest.mark.parametrize(
    ("error", "kind", "may_have_worked"),
    [
        (UpstreamUnreachable(), "connect", False),
        (UpstreamBusy(), "busy", False),
        (UpstreamTimeout("connect"), "connect", False),
        (UpstreamTimeout("pool"), "busy", False),
        (UpstreamTimeout("write"), "timeout", False),
        (UpstreamTimeout("first_byte"), "timeout", True),
        (UpstreamTimeout("idle"), "timeout", True),
        (UpstreamTimeout("total"), "timeout", True),
        (unsent(UpstreamTimeout("total")), "timeout", False),
        (UpstreamDisconnected(), "reset", True),
        (StaleConnection(), "reset", True),
        (unsent(StaleConnection()), "reset", False),
        (UpstreamProtocolError(), "bad_response", True),
        (unsent(UpstreamProtocolError()), "bad_response", False),
        (UpstreamError("another"), "bad_response", True),
    ],
    ids=str,
)
def test_of_an_error(error: UpstreamError, kind: str, may_have_worked: bool) -> None:
    assert of_error(error) == Outcome(kind, may_have_worked)
    assert of_error(error.twin()) == of_error(error)


def test_an_error_for_which_nothing_was_sent_has_done_nothing() -> None:
    error = UpstreamUnreachable()
    error.sent = True  # by a transport that is mistaken
    assert not of_error(error).may_have_worked


def test_every_error_of_the_tree_has_a_kind() -> None:
    tree = [UpstreamError]
    for error in tree:
        tree += error.__subclasses__()
    known = {
        UpstreamError, UpstreamUnreachable, UpstreamDisconnected, StaleConnection,
        UpstreamProtocolError, UpstreamBusy, UpstreamTimeout, UpstreamsDown,
    }  # fmt: skip
    assert {each for each in tree if each.__module__ == "ai_proxy_mw._errors"} == known


def test_of_an_answer() -> None:
    assert of_answer(500, [], 0.0) == Outcome(500, False, None, None)
    headers = [(b"content-type", b"text/html"), (b"retry-after", b"3"), (b"x-should-retry", b"no")]
    assert of_answer(503, headers, 0.0) == Outcome(503, False, 3.0, None)
    headers = [(b"retry-after", b"Thu, 01 Jan 1970 00:01:00 GMT"), (b"x-should-retry", b"false")]
    assert of_answer(429, headers, 50.0) == Outcome(429, False, 10.0, False)
