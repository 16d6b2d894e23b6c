"""What answers report, however they come, and what nobody but the provider can report."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw._config import Timeouts
from ai_proxy_mw.accounting import json_reader
from ai_proxy_mw.accounting.readers import UsageReader, reader_for
from ai_proxy_mw.accounting.reported import from_anthropic, from_duration, from_openai
from ai_proxy_mw.accounting.usage import Usage
from ai_proxy_mw.testing import FakeUpstream
from ai_proxy_mw.upstream.base import Origin, Outbound

CHAT = "POST /chat/completions"
SSE = "text/event-stream; charset=utf-8"


def json_reader_for(endpoint: str, coding: str | None = None) -> UsageReader:
    return reader_for(endpoint, 200, "application/json", coding)


def stream_reader_for(endpoint: str) -> UsageReader:
    return reader_for(endpoint, 200, SSE, None)


def read(reader: UsageReader, *pieces: bytes) -> Usage | None:
    for piece in pieces:
        reader.chunk(piece)
    return reader.usage()


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def answer(**more: Any) -> bytes:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return json.dumps({"choices": [], "usage": usage, **more}).encode()


# What the fake really answers, through a call.


async def _call(path: str, body: dict[str, Any], fake: FakeUpstream) -> tuple[Usage | None, bytes]:
    response = await fake.transport().send(
        Outbound(
            method="POST",
            origin=Origin("http", "fake.invalid", 80),
            target=f"/v1{path}".encode(),
            headers=[(b"content-type", b"application/json")],
            body=json.dumps(body).encode(),
            timeouts=Timeouts(),
        )
    )
    head = dict(response.headers)
    reader = reader_for(
        f"POST {path}",
        response.status,
        head[b"content-type"].decode(),
        head.get(b"content-encoding", b"identity").decode(),
    )
    passed = b""
    async for piece in response.body:
        reader.chunk(piece)
        passed += piece
    return reader.usage(), passed


HELLO = [{"role": "user", "content": "one two three"}]
CALLS = [
    ("/chat/completions", {"messages": HELLO}, Usage(3, 4)),
    ("/chat/completions", {"messages": HELLO, "n": 3}, Usage(3, 12)),
    ("/completions", {"prompt": "x"}, Usage(1, 4)),
    ("/responses", {"input": "one two"}, Usage(2, 4)),
    ("/responses", {"input": "one two", "max_output_tokens": 2}, Usage(2, 2)),
    ("/messages", {"messages": HELLO, "max_tokens": 9}, Usage(3, 4)),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body", "usage"), CALLS)
def test_the_fakes_answers(path: str, body: dict[str, Any], usage: Usage, stream: bool) -> None:
    if stream and path == "/completions":
        usage = Usage(1, 4)
    body = {"model": "m", "stream": stream, **body}
    if stream and path in ("/chat/completions", "/completions"):
        body["stream_options"] = {"include_usage": True}
    fake = FakeUpstream(words=["a", "b", "c", "d"])
    assert asyncio.run(_call(path, body, fake))[0] == usage


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
def test_a_stream_that_reports_nothing_is_estimated(path: str) -> None:
    body = {"model": "m", "stream": True, "messages": HELLO, "prompt": "x"}
    fake = FakeUpstream(words=["a", "b", "c", "d"])
    usage = asyncio.run(_call(path, body, fake))[0]
    assert usage == Usage(0, 4, measured=False)


def test_packed_answers() -> None:
    fake = FakeUpstream(words=["a"], compress="always")
    usage, passed = asyncio.run(_call(CALLS[0][0], {"model": "m", "messages": HELLO}, fake))
    assert passed.startswith(b"\x1f\x8b")
    assert usage == Usage(3, 1)


def test_the_fakes_pictures() -> None:
    body = {"model": "m", "prompt": "a cat", "n": 2}
    assert asyncio.run(_call("/images/generations", body, FakeUpstream()))[0] == Usage(
        1, 1, images=2
    )


# One meaning for all providers.


def test_openai_details() -> None:
    chat = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {
            "cached_tokens": 60, "cache_write_tokens": 5, "audio_tokens": 4, "image_tokens": 3,
        },
        "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 2},
    }  # fmt: skip
    assert from_openai(chat) == Usage(
        100,
        50,
        cached_input_tokens=60,
        cache_write_tokens=5,
        reasoning_tokens=20,
        audio_input_tokens=4,
        audio_output_tokens=2,
        image_input_tokens=3,
    )
    transcription = {
        "type": "tokens", "input_tokens": 14, "output_tokens": 5,
        "input_token_details": {"audio_tokens": 13, "text_tokens": 1},
    }  # fmt: skip
    assert from_openai(transcription) == Usage(14, 5, audio_input_tokens=13)
    assert from_openai({"type": "duration", "seconds": 9}) == Usage(0, 0, seconds=9.0)
    assert from_openai({"prompt_tokens": 8, "total_tokens": 8}) == Usage(8, 0)
    deepseek = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4}
    assert from_openai(deepseek) == Usage(9, 1, cached_input_tokens=4)


def test_reasoning_outside_of_completion_tokens_is_output() -> None:
    xai = {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}
    assert from_openai(xai) == Usage(32, 103)


def test_anthropic_input_leaves_the_cache_out() -> None:
    raw = {
        "input_tokens": 100, "output_tokens": 5, "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 20, "output_tokens_details": {"thinking_tokens": 2},
    }  # fmt: skip
    assert from_anthropic(raw) == Usage(
        130, 5, cached_input_tokens=10, cache_write_tokens=20, reasoning_tokens=2
    )


@pytest.mark.parametrize("wrong", [-1, 1.5, 12.0, True, "7", 10**30, [], {}])
def test_wrong_numbers_are_not_reported(wrong: Any) -> None:
    assert from_openai({"prompt_tokens": wrong, "completion_tokens": 1}) is None
    assert from_openai({"input_tokens": 1, "output_tokens": wrong}) is None
    assert from_anthropic({"input_tokens": wrong, "output_tokens": 1}) is None
    assert from_anthropic({"input_tokens": 1, "cache_read_input_tokens": wrong}) is None
    assert from_openai(
        {
            "prompt_tokens": 2,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": wrong},
        }
    ) == Usage(2, 1)


@pytest.mark.parametrize("raw", [None, [], "x", 1, {}, {"input_tokens": None}])
def test_what_is_no_usage(raw: Any) -> None:
    assert from_openai(raw) is None
    assert from_anthropic(raw) is None


@pytest.mark.parametrize("seconds", [-1, True, "9", None, float("inf"), float("nan"), 10**9])
def test_wrong_durations(seconds: Any) -> None:
    assert from_duration(seconds) is None


def test_parts_are_never_more_than_the_whole() -> None:
    raw = {"input_tokens": 5, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 9}}
    assert from_openai(raw) == Usage(5, 1, cached_input_tokens=5)


# JSON answers.


FAKED = [
    {"choices": [{"message": {"content": '"usage":{"prompt_tokens":0,"completion_tokens":0}'}}]},
    {"content": [{"input": {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}}]},
    {'x"usage': {"prompt_tokens": 0, "completion_tokens": 0}},
    {"after": [{"usage": {"prompt_tokens": n}} for n in range(50)]},
]


@pytest.mark.parametrize("faked", FAKED)
@pytest.mark.parametrize("first", [True, False])
def test_a_model_cannot_report_for_the_provider(faked: dict[str, Any], first: bool) -> None:
    real = {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    both = {**real, **faked} if first else {**faked, **real}
    assert read(json_reader_for(CHAT), json.dumps(both).encode()) == Usage(7, 3)
    alone = read(json_reader_for(CHAT), json.dumps(faked).encode())
    assert alone is not None
    assert not alone.measured


def test_of_a_long_answer_the_tail_is_enough() -> None:
    long = json.dumps({"data": ["x" * 50_000] * 60, "usage": {"prompt_tokens": 7}}).encode()
    embeddings = "POST /embeddings"
    assert read(json_reader_for(embeddings), long) == Usage(7, 0)
    pieces = [long[i : i + 9000] for i in range(0, len(long), 9000)]
    reader = json_reader_for(embeddings)
    assert read(reader, *pieces) == Usage(7, 0)
    assert isinstance(reader, json_reader.JSONReader)
    assert len(reader._text) <= json_reader.KEEP


def test_in_the_tail_of_a_long_answer_nothing_is_made_up() -> None:
    long = b'{"usage":{"prompt_tokens":7},"data":["' + b"x" * (3 << 20) + b'",{"usage":'
    long += b'{"prompt_tokens":1}}]}'
    assert read(json_reader_for("POST /embeddings"), long) is None


def test_a_cut_answer_is_estimated() -> None:
    cut = answer(x="y" * 1200)[:-20]
    usage = read(json_reader_for(CHAT), cut)
    assert usage == Usage(0, -(-(len(cut) - 300) // 4), measured=False)
    assert read(json_reader_for("POST /embeddings"), cut) is None
    assert read(json_reader_for(CHAT)) is None
    assert read(json_reader_for(CHAT), b"{}") == Usage(0, 0, measured=False)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_garbage_raises_nothing(garbage: bytes, cuts: list[int]) -> None:
    for endpoint in (CHAT, "POST /messages", "POST /responses", "POST /images/edits", "POST /x"):
        for kind in ("application/json", SSE):
            for coding in (None, "gzip", "deflate"):
                reader = reader_for(endpoint, 200, kind, coding)
                edges = [0, *sorted(cuts), len(garbage)]
                for start, end in itertools.pairwise(edges):
                    reader.chunk(garbage[start:end])
                reader.usage()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["usage", "response", "message", "type", "input_tokens", "seconds"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_raises_nothing(value: Any) -> None:
    for endpoint in (CHAT, "POST /messages", "POST /responses", "POST /audio/transcriptions"):
        read(json_reader_for(endpoint), json.dumps(value).encode())
        read(
            stream_reader_for(endpoint),
            event(value),
            event({"type": "message_start", "message": value}),
        )


def test_deep_nesting_raises_nothing() -> None:
    deep = b'{"usage":' + b'{"a":' * 100_000
    assert read(json_reader_for("POST /embeddings"), deep) is None
    assert read(stream_reader_for("POST /embeddings"), b"data: " + deep + b"\n\n") is None


def test_transcriptions() -> None:
    endpoint = "POST /audio/transcriptions"
    duration = b'{"text":"hi","usage":{"type":"duration","seconds":9}}'
    assert read(json_reader_for(endpoint), duration) == Usage(0, 0, seconds=9.0)
    verbose = b'{"task":"transcribe","duration":8.5,"segments":[]}'
    assert read(json_reader_for(endpoint), verbose) == Usage(0, 0, seconds=8.5)
    assert read(json_reader_for(CHAT), verbose) == Usage(0, 0, measured=False)
    plain = reader_for(endpoint, 200, "text/plain", None)
    assert read(plain, b"w" * 700) == Usage(0, 100, measured=False)


@given(st.lists(st.integers(0, 400), max_size=8))
def test_pictures_are_counted_however_the_answer_is_cut(cuts: list[int]) -> None:
    body = b'{"data":[' + b",".join([b'{"url":null,"b64_json":"eA=="}'] * 5) + b"]}"
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)]
    usage = read(json_reader_for("POST /images/edits"), *pieces)
    assert usage == Usage(0, 0, images=5, measured=False)


# Streams.


def test_every_cut_of_a_stream_reads_the_same() -> None:
    stream = b"".join(
        [
            *[event({"choices": [{"delta": {"content": w}}], "usage": None}) for w in "abc"],
            event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
            b"data: [DONE]\n\n",
        ]
    )
    for cut in range(len(stream)):
        assert read(stream_reader_for(CHAT), stream[:cut], stream[cut:]) == Usage(7, 3)


def test_the_last_report_counts_and_garbage_after_it_does_not() -> None:
    pieces = [
        event({"usage": {"prompt_tokens": 7, "completion_tokens": 1}}),
        event({"usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
        event({"usage": {"prompt_tokens": -1, "completion_tokens": 9}}),
        b'data: {"usage":{"prompt_tokens":NaN}}\n\n',
    ]
    assert read(stream_reader_for(CHAT), *pieces) == Usage(7, 3)


def test_text_in_a_stream_reports_nothing() -> None:
    said = '"usage":{"prompt_tokens":0,"completion_tokens":0}'
    usage = read(stream_reader_for(CHAT), event({"choices": [{"delta": {"content": said}}]}))
    assert usage is not None
    assert not usage.measured


@pytest.mark.parametrize(
    ("endpoint", "value", "length"),
    [
        (CHAT, {"choices": [{"delta": {"content": "x" * 40}}]}, 40),
        (CHAT, {"choices": [{"delta": {"content": 'say "hi"' * 10}}]}, 100),
        (CHAT, {"choices": [{"delta": {"content": "", "reasoning_content": "x" * 40}}]}, 40),
        (CHAT, {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "y" * 8}}]}}]}, 8),
        ("POST /completions", {"choices": [{"text": "x" * 20}]}, 20),
        ("POST /responses", {"type": "response.output_text.delta", "delta": "x" * 12}, 12),
        ("POST /messages", {"type": "content_block_delta", "delta": {"text": "x" * 16}}, 16),
        ("POST /messages", {"delta": {"partial_json": "x" * 16}}, 16),
    ],
)
def test_words_are_measured(endpoint: str, value: Any, length: int) -> None:
    expected = Usage(0, -(-length // 4), measured=False)
    assert read(stream_reader_for(endpoint), event(value)) == expected


def test_an_unfinished_escape_is_no_trouble() -> None:
    piece = b'data: {"choices":[{"delta":{"content":"abc\\"def\n\n'
    assert read(stream_reader_for(CHAT), piece) == Usage(0, 2, measured=False)


def test_events_without_words_are_no_output() -> None:
    assert read(stream_reader_for(CHAT), event({"choices": [{"delta": {}}]})) is None
    assert read(stream_reader_for("POST /audio/speech"), event({"delta": "UklGR"})) is None


def _messages(*, end: bool) -> list[bytes]:
    start = {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 1}
    deltas = [event({"type": "content_block_delta", "delta": {"text": "x" * 40}})] * 2
    closing = event({"type": "message_delta", "usage": {"output_tokens": 33, "input_tokens": None}})
    return [
        event({"type": "message_start", "message": {"usage": start}}),
        *deltas,
        *([closing] if end else []),
    ]


def test_messages_add_up_to_the_last_delta() -> None:
    endpoint = "POST /messages"
    usage = read(stream_reader_for(endpoint), *_messages(end=True))
    assert usage == Usage(7, 33, cached_input_tokens=2)
    cut = read(stream_reader_for(endpoint), *_messages(end=False))
    assert cut == Usage(7, 20, cached_input_tokens=2, measured=False)


def test_messages_that_make_no_sense() -> None:
    pieces = [
        event({"type": "message_start", "usage": {"input_tokens": 1}}),
        event({"type": "message_start", "message": {"usage": [1]}}),
        event({"type": 7, "usage": {"input_tokens": 1}}),
        event({"type": "message_delta", "usage": {"output_tokens": "many"}}),
    ]
    assert read(stream_reader_for("POST /messages"), *pieces) is None


def test_responses_report_inside() -> None:
    endpoint = "POST /responses"
    report = {
        "type": "response.failed",
        "response": {"usage": {"input_tokens": 4, "output_tokens": 2}},
    }
    tool = {"properties": {"usage": {"input_tokens": 0, "output_tokens": 0}}}
    begun = {"type": "response.created", "response": {"usage": None, "tools": [tool]}}
    assert read(stream_reader_for(endpoint), event(begun)) is None
    assert read(stream_reader_for(endpoint), event(begun), event(report)) == Usage(4, 2)
    assert read(stream_reader_for(endpoint), event({"response": 1, "usage": {"a": 1}})) is None


def test_streams_of_pictures_larger_than_what_is_kept() -> None:
    picture = "A" * (3 << 20)
    usage = {"input_tokens": 5, "output_tokens": 900}
    last = event({"type": "image_generation.completed", "b64_json": picture, "usage": usage})
    partial = event({"type": "image_generation.partial_image", "b64_json": picture})
    stream = partial + last
    pieces = [stream[i : i + 65_536] for i in range(0, len(stream), 65_536)]
    reader = stream_reader_for("POST /images/generations")
    assert read(reader, *pieces) == Usage(5, 900, images=1)
    assert isinstance(reader, json_reader.PictureStreamReader)
    assert len(reader._text) <= 3 * json_reader.TAIL
    unreported = event({"type": "image_edit.completed", "b64_json": "A"})
    edits = stream_reader_for("POST /images/edits")
    assert read(edits, unreported) == Usage(0, 0, images=1, measured=False)
    assert read(stream_reader_for("POST /images/edits"), partial) is None


# Packed answers.


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), (" X-GZIP", gzip.compress), ("deflate", zlib.compress)],
)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_packed_in_any_pieces(coding: str, pack: Any, size: int) -> None:
    packed = pack(answer(x="é" * 100_000))
    pieces = [packed[i : i + size] for i in range(0, len(packed), size)]
    assert read(json_reader_for(CHAT, coding), *pieces) == Usage(7, 3)


def test_several_members_are_one_answer() -> None:
    whole = answer()
    packed = gzip.compress(whole[:20]) + gzip.compress(whole[20:])
    assert read(json_reader_for(CHAT, "gzip"), packed) == Usage(7, 3)


class _Counting:
    has_said = True

    def __init__(self) -> None:
        self.taken = 0
        self.largest = 0

    def chunk(self, data: bytes) -> None:
        self.taken += len(data)
        self.largest = max(self.largest, len(data))

    def usage(self) -> Usage | None:
        return None


def test_a_bomb_is_given_up() -> None:
    from ai_proxy_mw.accounting.inflating import WINDOWS, InflatingReader

    bomb = gzip.compress(b"0" * (100 << 20))
    inner = _Counting()
    reader = InflatingReader(inner, WINDOWS["gzip"])
    for start in range(0, len(bomb), 16_384):
        reader.chunk(bomb[start : start + 16_384])
    assert reader.usage() is None
    assert inner.largest <= 65_536
    assert inner.taken <= (1 << 20) + 100 * len(bomb)
    assert inner.taken < 20 << 20


def test_what_is_not_of_the_coding_is_given_up() -> None:
    noise = random.Random(1).randbytes(2000)
    assert read(json_reader_for("POST /embeddings", "gzip"), noise, answer()) is None


# Which answers are read at all.


@pytest.mark.parametrize(
    ("endpoint", "status", "kind", "coding"),
    [
        (CHAT, 400, "application/json", None),
        (CHAT, 200, "application/json", "br"),
        ("GET /responses/{id}", 200, "application/json", None),
        ("POST /files", 200, "application/json", None),
        ("POST /audio/speech", 200, "audio/mpeg", None),
    ],
)
def test_answers_that_tell_nothing(
    endpoint: str, status: int, kind: str, coding: str | None
) -> None:
    assert read(reader_for(endpoint, status, kind, coding), answer()) is None


def test_counting_tokens_is_free() -> None:
    reader = json_reader_for("POST /messages/count_tokens")
    assert read(reader, b'{"input_tokens":2095}') == Usage(0, 0)


def test_an_answer_without_a_type_and_an_endpoint_of_the_owner() -> None:
    assert read(reader_for("POST /rerank", 200, None, None), answer()) == Usage(7, 3)
    assert read(stream_reader_for("POST /rerank"), event(json.loads(answer()))) == Usage(7, 3)
