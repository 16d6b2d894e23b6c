"""Server-sent events out of bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw._sse import Event, EventParser

STREAM = (
    b"\xef\xbb\xbfdata: a\r\n\r\n: a comment\n\nevent: x\ndata: b\ndata:  c\nid: 7\n\ndata\n\r"
    b"data: d\r\rretry: 5\n\nevent: y\n\ndata: e\n\ndata:f\n\ndata: [DONE]\n\ndata: not yet"
)
EVENTS = [
    Event("", b"a"),
    Event("x", b"b\n c"),
    Event("", b""),
    Event("", b"d"),
    Event("", b"e"),
    Event("", b"f"),
    Event("", b"[DONE]"),
]


def parse(pieces: list[bytes], **options: int) -> list[Event]:
    parser = EventParser(**options)
    return [event for piece in pieces for event in parser.feed(piece)]


def test_events_are_found() -> None:
    assert parse([STREAM]) == EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_they_are_found_in_pieces(size: int) -> None:
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert parse(pieces) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_however_they_are_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(places)]
    assert parse(pieces) == EVENTS


def test_an_event_that_is_too_large_is_passed_over_and_not_held() -> None:
    parser = EventParser(max_event=10)
    for _ in range(1000):
        assert parser.feed(b"data: xxxxxxx") == []
        assert len(parser._held) < 30
    assert parser.feed(b"\n") == []
    assert parser.feed(b"\ndata: ok\n\n") == [Event("", b"ok")]
    assert parser.skipped == 1
    assert parser.feed(b"event: z\ndata: 123456789\n\ndata: 1\n\n") == [Event("", b"1")]
    assert parser.skipped == 2
