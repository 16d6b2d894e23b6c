"""The use of a stream that was asked for in a caller's name, and what he sees of it: nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_proxy_mw import ConfigurationError, Upstream
from ai_proxy_mw._errors import UpstreamDisconnected
from ai_proxy_mw._http import Response
from ai_proxy_mw._sse import MAX_EVENT
from ai_proxy_mw.accounting.hidden_usage import HiddenUsage, asking, hide, tell
from ai_proxy_mw.accounting.readers import reader_for
from ai_proxy_mw.schema.call import Call
from tests.caching.house import Hand

CHAT = "POST /chat/completions"
WORD = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":null}'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5}}'
SPACED = b'data: {"choices" : [ ], "usage" :\t{"prompt_tokens": 1, "completion_tokens": 2}}'
LINES = b'event: x\ndata: {"choices":[],\ndata: "usage":{"prompt_tokens":3}}'
DONE = b"data: [DONE]"

# None of them is the one.
SHOWN = [
    WORD,
    DONE,
    b": a comment",
    b'data: {"choices":[],"usage":null,"prompt_filter_results":[{"prompt_index":0}]}',
    b'data: {"choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":7}}',
    b'data: {"choices":[],"usage":{"prompt_tokens":7},"error":{"message":"m"}}',
    b'data: {"usage":{"prompt_tokens":7}}',
    b'data: {"choices":null,"usage":{"prompt_tokens":7}}',
    b'data: {"choices":[],"x_groq":{"usage":{"prompt_tokens":7}}}',
    b'data: {"choices":[{"delta":{"content":"{\\"choices\\":[],\\"usage\\":{}}"}}]}',
    b'data: {"choices":[],"usage":{"prompt_tokens":7}',
    b'data: [{"choices":[],"usage":{"prompt_tokens":7}}]',
    b'data: "\xff","choices":[],"usage":{"prompt_tokens":7}',
    b'event: {"choices":[],"usage":{"prompt_tokens":7}}',
]
HIDDEN = [USAGE, SPACED, LINES]


def heard(pieces: list[bytes]) -> tuple[list[bytes], HiddenUsage]:
    body = HiddenUsage(Hand(*pieces, None))

    async def main() -> list[bytes]:
        return [piece async for piece in body]

    with pytest.raises(StopIteration) as found:  # it has nothing to wait for, and needs no loop
        main().send(None)
    return found.value.value, body


def cut(text: bytes, places: list[int]) -> list[bytes]:
    return [text[start:end] for start, end in itertools.pairwise([0, *sorted(places), len(text)])]


@pytest.mark.parametrize("hidden", HIDDEN)
def test_the_one_chunk_is_put_aside(hidden: bytes) -> None:
    pieces = [WORD + b"\n\n", hidden + b"\n\n", DONE + b"\n\n"]
    shown, body = heard(pieces)
    assert shown == [pieces[0], pieces[2]]
    assert all(one is other for one, other in zip(shown, [pieces[0], pieces[2]], strict=True))
    reader = reader_for(CHAT, 200, "text/event-stream", None)
    tell(reader, body.events)
    usage = reader.usage()
    assert usage is not None
    assert usage.measured


@pytest.mark.parametrize("event", SHOWN)
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"])
def test_nothing_else_is(event: bytes, end: bytes) -> None:
    piece = event + end
    shown, body = heard([piece, piece])
    assert shown == [piece, piece]
    assert shown[0] is piece
    assert body.events == []


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\r\n\n", b"\n\r\n", b"\n\r"])
def test_wherever_it_is_cut(end: bytes) -> None:
    # A line feed behind "\n\r" would belong to it.
    last = b"" if end == b"\n\r" else DONE + end
    stream = b"".join([WORD + end, SPACED + end, LINES.replace(b"\n", end[:1]) + end, last])
    for place in range(len(stream) + 1):
        shown, body = heard(cut(stream, [place]))
        assert b"".join(shown) == WORD + end + last
        assert len(body.events) == 1
    assert (
        b"".join(heard([stream[at : at + 1] for at in range(len(stream))])[0]) == WORD + end + last
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*SHOWN, *HIDDEN, USAGE, USAGE]),
            st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\n\n"]),
        ),
        max_size=8,
    ),
    st.lists(st.integers(0, 1500), max_size=12),
    st.sampled_from([b"", b"data: {", b"\n", b": x\n"]),
)
def test_however_it_is_cut(
    events: list[tuple[bytes, bytes]], places: list[int], rest: bytes
) -> None:
    stream = b"".join([event + end for event, end in events]) + rest
    kept = [event + end for event, end in events if event not in HIDDEN]
    shown, body = heard(cut(stream, [min(place, len(stream)) for place in places]))
    assert b"".join(shown) == b"".join(kept) + rest
    hidden = [event + end + b"\n\n" for event, end in events if event in HIDDEN]
    assert body.events == hidden[-1:]
    assert b"" not in shown


@given(
    st.text("\r\nxd", max_size=40),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_what_is_not_hidden_is_as_it_came(text: str, places: list[int]) -> None:
    stream = text.encode()
    shown, _ = heard(cut(stream, [min(place, len(stream)) for place in places]))
    assert b"".join(shown) == stream


@given(st.text("\r\n", max_size=6), st.lists(st.integers(0, 200), max_size=6))
def test_the_same_is_hidden_wherever_it_is_cut(ends: str, places: list[int]) -> None:
    stream = b"%b%b%b%b" % (USAGE, b"\r\n\r" + ends.encode(), USAGE, b"\r\r" + WORD)
    whole, _ = heard([stream])
    shown, _ = heard(cut(stream, [min(place, len(stream)) for place in places]))
    assert b"".join(shown) == b"".join(whole)


def test_only_a_beginning_is_held() -> None:
    shown, _ = heard([WORD + b"\n\n" + WORD[:9], WORD[9:], b"\n", b"\n" + DONE])
    assert shown == [WORD + b"\n\n", WORD + b"\n\n", DONE]


def test_the_last_event_may_have_no_end() -> None:
    shown, body = heard([WORD + b"\n\n", USAGE + b"\n"])
    assert shown == [WORD + b"\n\n"]
    reader = reader_for(CHAT, 200, "text/event-stream", None)
    reader.chunk(b"data: cut")
    tell(reader, body.events)
    usage = reader.usage()
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.measured) == (7, 5, True)


def test_a_large_event_is_not_waited_for() -> None:
    large = USAGE[:-1] + b',"x":"' + b"x" * MAX_EVENT + b'"}'
    pieces = [large[:-10], large[-10:], b"\n", b"\n" + USAGE + b"\n\n" + DONE, b"\n\n"]
    shown, body = heard(pieces)
    assert b"".join(shown) == large + b"\n\n" + DONE + b"\n\n"
    assert len(shown[0]) > MAX_EVENT
    assert body.events == [USAGE + b"\n\n\n\n"]
    at_once, _ = heard([large + b"\n\n" + USAGE + b"\n\n"])
    assert b"".join(at_once) == large + b"\n\n"
    assert b"".join(heard([large])[0]) == large  # and nothing comes behind it
    lines = [b"data: " + b"x" * MAX_EVENT + b"\n", USAGE, b"\n\n"]
    assert b"".join(heard(lines)[0]) == b"".join(lines)  # its end is none of its own


def test_no_more_is_held_than_a_large_event() -> None:
    async def main() -> None:
        hand = Hand(*[b"data: " + b"x" * 65536] * 40)
        body = HiddenUsage(hand)
        for _ in range(20):
            await body.__anext__()
            assert len(body._held) <= 3
        await body.aclose()
        assert (len(body._held), hand.closed) == (0, 1)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("pieces", "ended"),
    [
        ([WORD + b"\n\n", DONE + b"\n\n"], [False, True]),
        ([WORD + b"\n\n" + DONE], [False, True]),  # the first time, something is held
        ([WORD + b"\n\n" + USAGE + b"\n\n"], [True]),
        ([WORD + b"\n\n", USAGE + b"\n\n" + DONE + b"\n\n"], [False, True]),
    ],
)
def test_when_it_has_ended(pieces: list[bytes], ended: list[bool]) -> None:
    async def main() -> list[bool]:
        body = HiddenUsage(Hand(*pieces, None, announced=True))
        await body.ready()
        found = [body.ended async for _ in body]
        with pytest.raises(StopAsyncIteration):
            await body.__anext__()
        return found

    assert asyncio.run(main()) == ended


def test_half_an_event_of_a_cut_stream_is_dropped() -> None:
    async def main() -> list[bytes]:
        body = HiddenUsage(Hand(WORD + b"\n\n" + WORD[:20], UpstreamDisconnected()))
        shown = [await body.__anext__()]
        with pytest.raises(UpstreamDisconnected):
            await body.__anext__()
        return shown

    assert asyncio.run(main()) == [WORD + b"\n\n"]


def test_a_response_says_no_length_of_what_is_taken_out_of_it() -> None:
    lines = [(b"content-type", b"text/event-stream"), (b"content-length", b"9"), (b"etag", b'"e"')]
    response = Response(200, lines, USAGE + b"\n\n")
    hide(response)
    assert response.headers == lines[:1]

    async def main() -> list[bytes]:
        return [piece async for piece in response.body]

    assert asyncio.run(main()) == []
    assert response.aside == [USAGE + b"\n\n\n\n"]


def call_of(body: bytes, endpoint: str = CHAT) -> Call:
    return Call(endpoint, body)


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (
            b'{"stream":true, "seed":1.50e3}',
            b'{"stream":true, "seed":1.50e3,"stream_options":{"include_usage":true}}',
        ),
        (
            b' {"user":"}","stream": true } \n',
            b' {"user":"}","stream": true ,"stream_options":{"include_usage":true}} \n',
        ),
        (
            b'{"seed":1.50e3, "stream_options": null ,"stream":true}',
            b'{"seed":1.50e3,"stream_options":{"include_usage":true},"stream":true}',
        ),
        (
            b'{"stream":true,"stream_options":{"include_usage": false, "x":1.0e2}}',
            b'{"stream":true,"stream_options":{"include_usage":true,"x":1.0e2}}',
        ),
        (
            b'{"stream":true,"stream_options":{"include_usage":null}}',
            b'{"stream":true,"stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream":true,"stream_options":{"include_obfuscation":false}}',
            b'{"stream":true,"stream_options":{"include_obfuscation":false,"include_usage":true}}',
        ),
        (
            b'{"a":{"stream_options":{}},"stream":true}',
            b'{"a":{"stream_options":{}},"stream":true,"stream_options":{"include_usage":true}}',
        ),
    ],
)
@pytest.mark.parametrize("endpoint", [CHAT, "POST /completions"])
def test_what_is_asked_for(body: bytes, sent: bytes, endpoint: str) -> None:
    call = call_of(body, endpoint)
    assert asking(call) == sent
    assert call.body() == body
    assert call_of(sent, endpoint).stream
    assert asking(call_of(sent, endpoint)) is None


def test_it_is_asked_for_in_the_body_that_would_be_sent() -> None:
    call = call_of(b'{"model":"a","stream":true}')
    sent = asking(call, call.replace(model="b").body())
    assert msgspec.json.decode(sent or b"") == {
        "model": "b",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"stream":false}',
        b'{"stream":null}',
        b'{"stream":true,"stream_options":{"include_usage":true}}',
        b'{"stream":true,"stream_options":{"include_usage" : true }}',
        b'{"stream":true,"stream_options":{"include_usage":1}}',
        b'{"stream":true,"stream_options":{"include_usage":%b}}' % (b"[" * 900 + b"]" * 900),
        b'{"stream":true,"stream_options":"include_usage"}',
        b'{"stream":true,"stream_options":[]}',
    ],
)
def test_nothing_is_asked_for(body: bytes) -> None:
    assert asking(call_of(body)) is None


@pytest.mark.parametrize("endpoint", ["POST /responses", "POST /messages", "POST /embeddings"])
def test_other_endpoints_report_it_in_any_case(endpoint: str) -> None:
    assert asking(call_of(b'{"stream":true}', endpoint)) is None


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("XYZ"), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25)
@given(
    st.dictionaries(st.text("XYZ"), _VALUES, max_size=4),
    st.sampled_from([None, (",", ":"), (" , ", " :\n")]),
)
def test_all_else_stays_as_it_is(members: dict[str, Any], separators: tuple[str, str]) -> None:
    body = json.dumps({**members, "stream": True}, separators=separators).encode()
    sent = asking(call_of(body))
    assert sent == body[:-1] + b',"stream_options":{"include_usage":true}}'
    assert json.loads(sent) == {**json.loads(body), "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("base_url", "said", "takes"),
    [
        ("https://api.openai.com/v1", None, True),
        ("https://API.OpenAI.com/v1", None, True),
        ("https://api.groq.com/openai/v1", None, True),
        ("https://api.openai.com/v1", False, False),
        ("https://api.openai.com.example.org/v1", None, False),
        ("https://openrouter.ai/api/v1", None, False),
        ("http://127.0.0.1:11434/v1", None, False),
        ("http://127.0.0.1:11434/v1", True, True),
    ],
)
def test_of_whom_it_is_asked(base_url: str, said: bool | None, takes: bool) -> None:
    assert Upstream(base_url=base_url, stream_usage=said).takes_stream_usage is takes


@pytest.mark.parametrize("wrong", ["yes", 1, 0, ()])
def test_what_may_be_said_of_it(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="stream_usage: write True, False"):
        Upstream(base_url="https://a.example/v1", stream_usage=wrong)
