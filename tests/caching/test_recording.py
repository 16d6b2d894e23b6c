"""Which answers that have come are made entries of."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import Any

import pytest

from ai_proxy_mw._http import Response
from ai_proxy_mw._types import RawHeaders
from ai_proxy_mw.caching.entry import Entry, decode, encode
from ai_proxy_mw.caching.flight import Flight
from ai_proxy_mw.caching.policy import Plan
from ai_proxy_mw.caching.recording import Term, recorded
from tests.caching.house import ANSWER, EVENTS, JSON, STREAM, Hand

PLAN = Plan("a:k", "alice", "POST /chat/completions", "fake-1")
GZIP = (b"content-encoding", b"gzip")


def record(
    *pieces: bytes,
    status: int = 200,
    headers: RawHeaders = JSON,
    plan: Plan = PLAN,
    most: int = 10**6,
) -> Entry | None:
    async def source() -> Response:
        response = Response(status, headers, Hand(*pieces, None))
        response.event_stream = headers[:1] == STREAM
        return response

    async def main() -> Entry | None:
        flight = Flight(most=10**7)
        await flight.carry(source)
        term = Term(1000.0, 60.0, 5.0)
        return await recorded(flight, plan, term, most=most)

    return asyncio.run(main())


def test_an_answer_is_kept_with_what_it_is() -> None:
    entry = record(ANSWER[:9], ANSWER[9:], headers=[*JSON, (b"etag", b'"e"'), (b"age", b"1")])
    assert entry == Entry(
        key="a:k",
        created=1000.0,
        ttl=60.0,
        keep=5.0,
        status=200,
        headers=[*JSON, (b"etag", b'"e"')],
        endpoint="POST /chat/completions",
        model="fake-1",
        body=ANSWER,
    )


@pytest.mark.parametrize("status", [199, 202, 204, 206, 301, 304, 400, 429, 500, 503])
def test_what_is_not_the_answer_is_not_kept(status: int) -> None:
    assert record(ANSWER, status=status) is None


@pytest.mark.parametrize("status", [200, 201, 203, 299])
def test_other_successes_are(status: int) -> None:
    assert record(ANSWER, status=status) is not None


@pytest.mark.parametrize(
    "pieces",
    [
        (b'{"error": {"message": "no"}}',),
        (b'{"id": "a"',),
        (b"",),
        (b"<html>busy</html>",),
        (b"data: [DONE]\n\n",),
        (b"\xff\xfe{}",),
    ],
)
def test_what_is_said_to_be_json_and_is_not_or_tells_of_an_error(pieces: tuple[bytes, ...]) -> None:
    assert record(*pieces) is None


@pytest.mark.parametrize("headers", [[], [(b"content-type", b"text/html")], [GZIP, *JSON]])
def test_content_types_and_codings_that_lie(headers: RawHeaders) -> None:
    assert record(ANSWER, headers=headers) is None


def test_a_stream_is_kept_with_its_frames() -> None:
    odd = [EVENTS[0][:3], b"", EVENTS[0][3:] + EVENTS[1], b"", EVENTS[2]]
    entry = record(*odd, headers=STREAM)
    assert entry is not None
    assert entry.event_stream
    assert entry.body == b"".join(EVENTS)
    assert len(entry.ends) == len(entry.times) == 3
    again = decode("a:k", encode(entry))
    assert again == entry


@pytest.mark.parametrize(
    "pieces",
    [
        EVENTS[:2],
        [*EVENTS[:2], b"data: [DONE]"],
        [*EVENTS[:1], b'data: {"error": {}}\n\n', EVENTS[2]],
    ],
)
def test_a_stream_that_has_not_ended_as_it_should_is_not_kept(pieces: list[bytes]) -> None:
    assert record(*pieces, headers=STREAM) is None


def test_what_is_packed_is_kept_unpacked() -> None:
    packed = gzip.compress(ANSWER, mtime=0)
    entry = record(packed, headers=[*JSON, GZIP, (b"etag", b'"of the packed"')])
    assert entry is not None
    assert (entry.body, entry.headers) == (ANSWER, JSON)
    same = record(ANSWER, headers=[(b"etag", b'"e"'), *JSON, (b"content-encoding", b"identity")])
    assert same is not None
    assert same.headers == [(b"etag", b'"e"'), *JSON]


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(b'{"a": "%b"}' % (b"x" * 10**6), mtime=0),  # above the cap
        gzip.compress(ANSWER, mtime=0)[:-5],
        gzip.compress(ANSWER, mtime=0) + b"x",
        zlib.compress(ANSWER),
        ANSWER,
    ],
)
def test_what_cannot_be_unpacked_or_is_too_large_then_is_not_kept(packed: bytes) -> None:
    assert record(packed, headers=[*JSON, GZIP]) is None


def test_unknown_codings_are_not_kept() -> None:
    assert record(ANSWER, headers=[*JSON, (b"content-encoding", b"rot13\xff")]) is None


def test_a_large_answer_is_judged_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[Any] = []
    to_thread = asyncio.to_thread

    async def noted(*arguments: Any) -> Any:
        threads.append(arguments)
        return await to_thread(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", noted)
    large = b'{"choices": [{}], "a": "%b"}' % (b"x" * 65536)
    assert record(ANSWER) is not None
    assert threads == []
    entry = record(large)
    assert entry is not None
    assert entry.body == large
    assert len(threads) == 1


def test_what_another_model_has_answered_is_not_kept() -> None:
    assert record(ANSWER, headers=[*JSON, (b"x-ai-proxy-upstream", b"a")]) is not None
    assert record(ANSWER, headers=[*JSON, (b"x-ai-proxy-model", b"other")]) is None
