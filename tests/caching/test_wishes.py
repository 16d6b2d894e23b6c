"""The Cache-Control of requests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw.caching.wishes import MOST_SECONDS, NONE, Wishes, wishes_of


def _of(*lines: bytes) -> Wishes:
    return wishes_of([(b"cache-control", line) for line in lines])


def test_no_wishes() -> None:
    headers = [(b"accept", b"*/*"), (b"pragma", b"no-cache"), (b"x-cache-control", b"no-store")]
    assert wishes_of(headers) is NONE
    assert wishes_of([]) is NONE
    assert Wishes(False, False, False, None, None, None) == NONE


@pytest.mark.parametrize(
    ("header", "wishes"),
    [
        (b"", {}),
        (b"no-transform, foo=bar", {}),
        (b"no-store", {"no_store": True}),
        (b"No-Cache,\tNO-STORE", {"no_store": True, "no_cache": True}),
        (b",, no-cache=x ,", {"no_cache": True}),
        (b"only-if-cached", {"only_if_cached": True}),
        (b"x-no-store, no-storage", {}),
        (b'ext="no-store, no-cache"', {}),
        (b'ext="a\\", no-store, ", no-cache', {"no_cache": True}),
        (b'ext="a, no-store', {"no_store": True}),
        (b"max-age=60", {"max_age": 60}),
        (b'max-age = "060"', {"max_age": 60}),
        (b"max-age=0", {"max_age": 0}),
        (b"max-age", {"max_age": 0}),
        (b"max-age=", {"max_age": 0}),
        (b"max-age=-1", {"max_age": 0}),
        (b"max-age=1.5", {"max_age": 0}),
        (b"max-age=\xb2", {"max_age": 0}),
        (b"max-age=1_0", {"max_age": 0}),
        (b"max-age=5, max-age=60", {"max_age": 5}),
        (b"max-age=4294967296", {"max_age": MOST_SECONDS}),
        (b"max-age=%b" % (b"9" * 4000), {"max_age": MOST_SECONDS}),
        (b"max-age=%b7" % (b"0" * 4000), {"max_age": 7}),
        (b"min-fresh=5, max-stale=6", {"min_fresh": 5, "max_stale": 6}),
        (b"min-fresh", {}),
        (b"min-fresh=x", {}),
        (b"max-stale", {"max_stale": MOST_SECONDS}),
        (b"max-stale, no-store", {"max_stale": MOST_SECONDS, "no_store": True}),
        (b"max-stale=x", {}),
        (b"max-stale=", {}),
        (b'max-stale=""', {}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wishes(header: bytes, wishes: dict[str, Any]) -> None:
    assert _of(header) == Wishes(**wishes)


def test_lines_are_joined() -> None:
    assert _of(b"no-store", b"max-age=1", b"max-age=2") == Wishes(no_store=True, max_age=1)


def test_more_than_anybody_sends_keeps_the_cache_out_of_it() -> None:
    assert _of(b"only-if-cached", b"a," * 3000) == Wishes(no_store=True, no_cache=True)
    assert _of(b'a="' + b"\\" * 4000) == NONE


@given(st.lists(st.binary(max_size=30) | st.text('max-stle=," \\09', max_size=30).map(str.encode)))
def test_nothing_is_raised(lines: list[bytes]) -> None:
    wishes = _of(*lines)
    for seconds in (wishes.max_age, wishes.min_fresh, wishes.max_stale):
        assert seconds is None or 0 <= seconds <= MOST_SECONDS
