"""Which answers are whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw.caching.complete import is_whole

CHAT, RESPONSES, MESSAGES = "POST /chat/completions", "POST /responses", "POST /messages"
SPEECH, PICTURES = "POST /audio/speech", "POST /images/generations"
STREAM, JSON = "text/event-stream; charset=utf-8", "application/json"


def sse(*events: object, named: bool = False, end: str = "\n") -> bytes:
    """Events as they are written; a dict is JSON, its type the name where they are named."""
    written = []
    for event in events:
        name = f"event: {event['type']}{end}" if named and isinstance(event, dict) else ""
        data = event if isinstance(event, str) else json.dumps(event)
        written.append(f"{name}data: {data}{end}{end}")
    return "".join(written).encode()


CHUNK = {"choices": [{"delta": {"content": 'an "error", é'}}], "error": None}
WHOLE = {
    CHAT: sse(CHUNK, CHUNK, "[DONE]"),
    "POST /completions": sse({"choices": []}, "[DONE]"),
    RESPONSES: sse(
        {"type": "response.created", "response": {"error": None}},
        {"type": "response.completed", "response": {}},
        named=True,
    ),
    MESSAGES: sse({"type": "message_start"}, {"type": "message_stop"}, named=True),
    SPEECH: sse({"type": "speech.audio.delta"}, {"type": "speech.audio.done"}),
    PICTURES: sse(
        {"type": "image_generation.partial_image", "b64_json": "A" * 2_000_000},
        {"type": "image_generation.completed"},
    ),
}


@pytest.mark.parametrize("endpoint", WHOLE)
def test_whole_streams(endpoint: str) -> None:
    body = WHOLE[endpoint]
    assert is_whole(endpoint, STREAM, body)
    assert is_whole(endpoint, "Text/Event-Stream", body.replace(b"\n", b"\r\n"))
    assert is_whole(endpoint, STREAM, body.replace(b"\n", b"\r"))
    assert is_whole(endpoint, STREAM, b"\xef\xbb\xbf: hello\n\n" + body + b"\n\n: bye\n\n:\n")


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, MESSAGES, SPEECH])
def test_a_stream_that_is_cut_is_not_whole(endpoint: str) -> None:
    body = WHOLE[endpoint]
    for length in range(len(body)):
        assert not is_whole(endpoint, STREAM, body[:length]), body[:length]


@pytest.mark.parametrize("endpoint", WHOLE)
@pytest.mark.parametrize(
    "more",
    [
        b"data: {}\n\n",
        b"data: {}",
        b"data",
        b"x",
        b"event: error\n\n",
        b"<html>",
        b"id: 1\n\n",
        b"database: x\n\n",
        b"data: [DONE]x\n\n",
    ],
)
def test_nothing_may_follow(endpoint: str, more: bytes) -> None:
    assert not is_whole(endpoint, STREAM, WHOLE[endpoint] + more)
    assert not is_whole(endpoint, STREAM, (WHOLE[endpoint] + more).replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("endpoint", WHOLE)
@pytest.mark.parametrize(
    "failure",
    [
        sse({"error": {"message": "no"}}),
        sse({"error": "no"}),
        sse({"type": "error"}),
        sse({"type": "response.failed", "response": {}}),
        b"event: error\ndata: {}\n\n",
        b'data: {"type":"err\\u006fr"}\n\n',
        b"data: <html>\n\n",
        b"data: [1]\n\n",
        b"data: [DONE]\n\n",
        b'data: {"a":"\xff"}\n\n',
        b"data:\n\n",
    ],
)
def test_a_failure_on_the_way(endpoint: str, failure: bytes) -> None:
    assert not is_whole(endpoint, STREAM, failure + WHOLE[endpoint])
    crlf = (failure + WHOLE[endpoint]).replace(b"\n", b"\r\n")
    assert not is_whole(endpoint, STREAM, crlf)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (CHAT, b""),
        (CHAT, sse("[DONE]")),
        (CHAT, sse(CHUNK)),
        (CHAT, sse({"type": "message_stop"})),
        (MESSAGES, sse({"type": "message_start"}, "[DONE]")),
        (MESSAGES, sse({"type": "message_stop"}, {"type": "ping"})),
        (RESPONSES, sse({"type": "response.failed"})),
        (RESPONSES, sse({"type": "response.created"})),
        ("POST /embeddings", sse({}, "[DONE]")),
        ("GET /models", sse({"type": "message_stop"}, "[DONE]")),
    ],
)
def test_streams_without_their_end(endpoint: str, body: bytes) -> None:
    assert not is_whole(endpoint, STREAM, body)


def test_other_ways_to_end() -> None:
    assert is_whole(RESPONSES, STREAM, sse({"type": "response.incomplete"}))
    assert is_whole(RESPONSES, STREAM, sse({"type": "response.completed"}, "[DONE]"))
    assert is_whole(MESSAGES, STREAM, b"event: message_stop\ndata: {}\n\n")
    assert is_whole(MESSAGES, STREAM, b'event: x\ndata: {"type":\ndata: "message_stop"}\n\n')


@pytest.mark.parametrize(
    ("endpoint", "kind", "body"),
    [
        (CHAT, JSON, b'{"choices":[{"finish_reason":"length"}]}'),
        (CHAT, "Application/JSON ; charset=utf-8", b' {"error":null,"choices":[{}]} '),
        ("GET /models", JSON, b'{"data":[]}'),
        (RESPONSES, JSON, b'{"status":"completed","output":[]}'),
        (RESPONSES, JSON, b'{"status":"incomplete","error":null,"output":[]}'),
        (RESPONSES, JSON, b'{"output":[]}'),
        (CHAT, JSON, b'{"status":"failed","choices":[{"error":null}]}'),
        (PICTURES, JSON, b'{"data":[{"b64_json":"AAAA"}]}'),
        (SPEECH, "audio/mpeg", b"\xff"),
        (SPEECH, "application/octet-stream", b"\xff"),
        (PICTURES, "image/png", b"\xff"),
    ],
)
def test_other_answers_that_are_whole(endpoint: str, kind: str, body: bytes) -> None:
    assert is_whole(endpoint, kind, body)


@pytest.mark.parametrize(
    ("endpoint", "kind", "body"),
    [
        (CHAT, JSON, b""),
        (CHAT, JSON, b"[]"),
        (CHAT, JSON, b"null"),
        (CHAT, JSON, b'{"choices":['),
        (CHAT, JSON, b"{}{}"),
        (CHAT, JSON, b'{"a":"\xff"}'),
        (CHAT, JSON, b'{"a":%b' % (b"[" * 100_000)),
        (CHAT, JSON, b'{"error":{}}'),
        (CHAT, JSON, b'{"error":"no"}'),
        (CHAT, JSON, b'{"error":false}'),
        (RESPONSES, JSON, b'{"status":"failed"}'),
        (RESPONSES, JSON, b'{"status":"in_progress"}'),
        (RESPONSES, JSON, b'{"status":["completed"]}'),
        (CHAT, "text/html", b"<html>Sign in to this network</html>"),
        (CHAT, "text/html", b"{}"),
        (CHAT, "text/plain", b"{}"),
        (CHAT, "", b"{}"),
        (CHAT, "application/json, text/html", b"{}"),
        (CHAT, "audio/mpeg", b"\xff"),
        (SPEECH, "audio/mpeg", b""),
        (SPEECH, "image/png", b"\xff"),
        (SPEECH, "text/html", b"<html>"),
    ],
)
def test_other_answers_that_are_not(endpoint: str, kind: str, body: bytes) -> None:
    assert not is_whole(endpoint, kind, body)


_PARTS = st.sampled_from(
    [b"data: ", b"data", b"event: ", b"\n", b"\n\n", b"\r", b"[DONE]", b"{}", b":", b"\xff", b"{"]
)


@given(
    st.sampled_from([*WHOLE, "GET /models"]),
    st.sampled_from([STREAM, JSON, "audio/mpeg", "\u0130", ";"]),
    st.binary(max_size=40) | st.lists(_PARTS).map(b"".join),
)
def test_nothing_is_raised(endpoint: str, kind: str, body: bytes) -> None:
    is_whole(endpoint, kind, body)


@given(st.lists(_PARTS).map(b"".join))
def test_the_short_way_and_the_parser_agree(body: bytes) -> None:
    body = body.replace(b"\r", b"") + WHOLE[CHAT]
    slowly = body.replace(b"\n", b"\r\n")
    assert is_whole(CHAT, STREAM, body) == is_whole(CHAT, STREAM, slowly)
