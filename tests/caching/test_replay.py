"""Kept and shared answers, as the answer to another call."""

from __future__ import annotations

import asyncio
import gzip
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw._http import Response
from ai_proxy_mw.caching.entry import Entry, decode, encode
from ai_proxy_mw.caching.flight import Head
from ai_proxy_mw.caching.replay import Frames, PacedFrames, coding_of, kept, shared
from tests.caching.house import EVENTS, JSON, STREAM, Hand, hear, request


def _entry(**more: Any) -> Entry:
    given = {"key": "a:k", "created": time.time(), "ttl": 60.0, "status": 200, "headers": JSON}
    return Entry(**{"endpoint": "POST /chat/completions", "body": b"{}", **given, **more})


def _stream(found: list[bytes], times: list[int] | None = None) -> Entry:
    ends = [sum(map(len, found[: n + 1])) for n in range(len(found))]
    body = b"".join(found)
    return _entry(headers=STREAM, event_stream=True, ends=ends, times=times or [], body=body)


class Loop:
    """The time of the loop, as paced replay sees it; whoever sleeps makes it pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 50.0
        self.slept: list[float] = []
        asleep = asyncio.sleep

        async def sleep(seconds: float) -> None:
            self.slept.append(round(seconds, 6))
            self.now += max(0.0, seconds)
            await asleep(0)

        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)


def test_a_kept_answer_has_what_is_kept_and_what_it_is() -> None:
    got = asyncio.run(hear(kept(_entry(), [(b"x-cache", b"HIT")])))
    assert (got.status, got.body) == (200, b"{}")
    assert got.headers == {
        "content-type": "application/json",
        "cache-control": "private",
        "content-security-policy": "sandbox",
        "x-content-type-options": "nosniff",
        "x-cache": "HIT",
        "content-length": "2",
    }
    bare = asyncio.run(hear(kept(_entry(), [], bodyless=True)))
    assert (bare.body, bare.headers["content-length"]) == (b"", "2")


@given(st.lists(st.binary(min_size=1, max_size=9000), min_size=1, max_size=8))
def test_a_stream_is_given_byte_for_byte(found: list[bytes]) -> None:
    entry = decode("a:k", encode(_stream(found, [0] * len(found))))
    assert entry is not None
    response = kept(entry, [])
    assert response.event_stream
    got = asyncio.run(hear(response))
    assert got.body == b"".join(found)
    assert got.headers["x-accel-buffering"] == "no"
    assert "content-length" not in got.headers
    assert all(len(piece) >= 16384 for piece in got.pieces[:-1])
    frames = asyncio.run(hear(kept(entry, [], paced=True)))
    assert frames.pieces == found


def test_frames_end_and_can_be_closed() -> None:
    async def main() -> None:
        for frames in (Frames([b"a", b"b"]), PacedFrames([b"a", b"b"], [0, 0])):
            assert await frames.__anext__() == b"a"
            assert not frames.ended
            await frames.aclose()
            with pytest.raises(StopAsyncIteration):
                await frames.__anext__()

    asyncio.run(main())


def test_paced_frames_come_when_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        body = kept(_stream(EVENTS, [0, 250, 1000]), [], paced=True).body
        with monkeypatch.context() as patch:
            loop = Loop(patch)
            heard = [await body.__anext__() for _ in range(2)]
            loop.now += 2.0  # a slow reader does not wait as well
            heard.append(await body.__anext__())
        assert heard == EVENTS
        assert body.ended
        assert loop.slept == [0.0, 0.25, -1.25]

    asyncio.run(main())


def test_a_stream_without_times_is_given_at_once() -> None:
    for entry in (
        _stream(EVENTS),
        _entry(headers=STREAM, event_stream=True, body=b"".join(EVENTS)),
    ):
        got = asyncio.run(hear(kept(entry, [], paced=True)))
        assert got.body == b"".join(EVENTS)


def _shared(head: Head, body: bytes, **asked: str) -> Response:
    listener: Any = Hand(body, None)
    headers = {name.replace("_", "-"): value for name, value in asked.items()}
    return shared(request(headers=headers), head, listener, [(b"x-cache", b"COLLAPSED")])


def test_what_was_said_to_one_alone_is_not_said_to_others() -> None:
    lines = [*JSON, (b"x-ratelimit-remaining-requests", b"1"), (b"x-upstream-request-id", b"1")]
    lines += [(b"openai-organization", b"o"), (b"content-length", b"2"), (b"vary", b"x")]

    async def main() -> None:
        got = await hear(_shared(Head(200, lines, False), b"{}"))
        assert got.headers == {
            "content-type": "application/json",
            "content-length": "2",
            "cache-control": "private",
            "content-security-policy": "sandbox",
            "x-content-type-options": "nosniff",
            "x-cache": "COLLAPSED",
        }
        refused = await hear(_shared(Head(429, [(b"retry-after", b"7")], False), b"{}"))
        assert (refused.status, refused.headers["retry-after"]) == (429, "7")
        stream = _shared(Head(200, [*STREAM], True), b"data: 1\n\n")
        assert stream.event_stream
        assert (await hear(stream)).headers["x-accel-buffering"] == "no"

    asyncio.run(main())


def test_each_who_shares_gets_a_coding_that_he_takes() -> None:
    packed = gzip.compress(b'{"a": 1}')
    lines = [*JSON, (b"content-encoding", b" GZIP "), (b"content-length", b"%d" % len(packed))]
    head = Head(200, [*lines, (b"etag", b'"e"')], False)

    async def main() -> None:
        assert coding_of(head.headers) == b"gzip"
        as_it_is = await hear(_shared(head, packed, accept_encoding="gzip"))
        assert (as_it_is.body, as_it_is.headers["etag"]) == (packed, '"e"')
        assert as_it_is.headers["content-length"] == str(len(packed))
        plain = await hear(_shared(head, packed, accept_encoding="identity"))
        assert plain.body == b'{"a": 1}'
        assert {"etag", "content-encoding", "content-length"}.isdisjoint(plain.headers)
        assert plain.headers["vary"] == as_it_is.headers["vary"] == "Accept-Encoding"
        assert head.headers[:3] == lines  # which others share

    asyncio.run(main())
