"""Answers that a caller has already."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw._http import BytesBody, Response
from ai_proxy_mw.caching.conditional import conditional

TAG = b'"f00"'


def _asked(*lines: bytes, tag: bytes = TAG) -> int:
    response = Response(200, [(b"etag", tag)], b"body")
    return conditional([(b"if-none-match", line) for line in lines], response, b"body").status


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b'"f00"', 304),
        (b'W/"f00"', 304),
        (b' "a", W/"b" ,"f00"', 304),
        (b"*", 304),
        (b" * ", 304),
        (b'"*"', 200),
        (b'"a", *', 200),
        (b"f00", 200),
        (b'"f0"', 200),
        (b'"f00', 200),
        (b"", 200),
        (b'w/"g"', 200),
        (b'"' + b"a" * 9000 + b'", "f00"', 200),
    ],
)
def test_lists_of_tags(line: bytes, status: int) -> None:
    assert _asked(line) == status
    assert _asked(line, tag=b"W/" + TAG) == status


def test_several_lines_are_one_list() -> None:
    assert _asked(b'"a"', b'"f00"') == 304
    assert _asked(b'"a"', b'"b"') == 200
    assert _asked() == 200


def test_304_has_no_body_and_none_of_its_headers() -> None:
    lines = [(b"content-type", b"application/json"), (b"content-length", b"4"), (b"vary", b"a")]
    lines += [(b"last-modified", b"x"), (b"x-cache", b"HIT"), (b"age", b"3"), (b"etag", TAG)]
    answer = conditional([(b"if-none-match", TAG)], Response(200, lines, b"body"), b"body")
    assert answer.status == 304
    assert answer.headers == [(b"vary", b"a"), (b"x-cache", b"HIT"), (b"age", b"3"), (b"etag", TAG)]
    assert isinstance(answer.body, BytesBody)
    assert answer.body.ended


@given(st.binary(), st.binary())
def test_the_tag_is_of_the_body(one: bytes, other: bytes) -> None:
    first = Response(200, [], one)
    assert conditional([], first, one) is first
    ((name, tag),) = first.headers
    assert name == b"etag"
    assert conditional([(b"if-none-match", tag)], Response(200, [], one), one).status == 304
    status = conditional([(b"if-none-match", tag)], Response(200, [], other), other).status
    assert (status == 304) == (one == other)


@given(st.binary(max_size=40))
def test_no_header_breaks_it(line: bytes) -> None:
    assert _asked(line) in (200, 304)
