"""What an event at the beginning of a stream says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw._sse import Event
from ai_proxy_mw.routing.error_status import status_of
from ai_proxy_mw.routing.first_event import CONTENT, LARGEST, PRELUDE, Kind, Verdict, verdict

CHAT = "POST /chat/completions"
COMPLETIONS = "POST /completions"
MESSAGES = "POST /messages"
RESPONSES = "POST /responses"
TRANSCRIPTIONS = "POST /audio/transcriptions"
EVERYWHERE = (CHAT, COMPLETIONS, MESSAGES, RESPONSES, TRANSCRIPTIONS, "POST /rerank")


def said(value: Any, endpoint: str = CHAT, name: str = "") -> Verdict:
    data = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return verdict(Event(name, data), endpoint)


def chunk(delta: Any, *, finish: Any = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice], "usage": None, **more}


@pytest.mark.parametrize(
    "delta",
    [
        {"role": "assistant"},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": []},
        {"role": "assistant", "content": None, "reasoning_content": ""},
        {},
        None,
    ],
)
def test_a_chunk_that_only_names_the_role_says_nothing(delta: Any) -> None:
    assert said(chunk(delta)) is PRELUDE


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "Hello"},
        {"content": " "},
        {"content": '"'},
        {"content": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": None, "reasoning_content": "Hm"},
        {"role": "assistant", "content": "", "refusal": "No"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"role": "assistant", "content": "", "audio": {"id": "a"}},
        ["of no provider"],
    ],
)
def test_a_chunk_that_says_something_is_content(delta: Any) -> None:
    assert said(chunk(delta)) is CONTENT


def test_of_several_choices_one_is_enough() -> None:
    nothing, something = chunk({"role": "assistant"}), chunk({"content": "x"})
    assert said({"choices": nothing["choices"] * 2}) is PRELUDE
    assert said({"choices": nothing["choices"] + something["choices"]}) is CONTENT


def test_a_reason_to_finish_is_content() -> None:
    assert said(chunk({}, finish="stop")) is CONTENT
    assert said(chunk({"role": "assistant", "content": ""}, finish="content_filter")) is CONTENT


def test_chunks_without_choices() -> None:
    assert said({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}) is PRELUDE
    assert said({"choices": [], "usage": {"prompt_tokens": 1}}) is CONTENT


@pytest.mark.parametrize("choices", [None, "x", 7, {}, [None], ["x"], [{"message": {"a": 1}}]])
def test_chunks_that_nobody_sends_are_content(choices: Any) -> None:
    assert said({"choices": choices}) is CONTENT


def test_completions() -> None:
    assert said({"choices": [{"text": "", "finish_reason": None}]}, COMPLETIONS) is PRELUDE
    assert said({"choices": [{"text": "x", "finish_reason": None}]}, COMPLETIONS) is CONTENT
    assert said({"choices": [{"text": "", "finish_reason": "stop"}]}, COMPLETIONS) is CONTENT
    assert said({"choices": [{"text": ["x"], "finish_reason": None}]}, COMPLETIONS) is CONTENT


BEGUN: dict[str, Any] = {"id": "r", "status": "in_progress", "error": None, "output": []}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.created", "response": BEGUN},
        {"type": "response.queued", "response": BEGUN},
        {"type": "response.in_progress", "response": BEGUN},
        {"type": "response.output_item.added", "item": {"type": "message", "content": []}},
        {"type": "response.output_item.added", "item": {"type": "reasoning", "summary": []}},
        {"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}},
        {
            "type": "response.reasoning_summary_part.added",
            "part": {"type": "summary_text", "text": ""},
        },
        {"type": "keepalive", "sequence_number": 3},
        {"type": "response.keep_alive"},
    ],
)
def test_the_first_steps_of_a_response_say_nothing(event: dict[str, Any]) -> None:
    assert said(event, RESPONSES, event["type"]) is PRELUDE
    assert said(event, RESPONSES) is PRELUDE


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.delta", "delta": "x"},
        {"type": "response.output_item.added", "item": {"type": "function_call", "name": "f"}},
        {"type": "response.output_item.added", "item": {"type": ["message"]}},
        {"type": "response.output_item.added", "item": None},
        {"type": "response.content_part.added", "part": {"type": "output_text", "text": "x"}},
        {"type": "response.completed", "response": {**BEGUN, "status": "completed"}},
        {"type": "response.incomplete", "response": {"error": None}},
        {"type": "response.new_thing"},
        {"type": 7, "item": "response.created"},
    ],
)
def test_what_says_something_in_a_response_is_content(event: dict[str, Any]) -> None:
    assert said(event, RESPONSES) is CONTENT


EMPTY = {"type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 1}}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message_start", "message": EMPTY},
        {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_start",
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "ping"},
    ],
)
def test_the_first_steps_of_a_message_say_nothing(event: dict[str, Any]) -> None:
    assert said(event, MESSAGES, event["type"]) is PRELUDE
    assert said(event, MESSAGES) is PRELUDE


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message_start", "message": {**EMPTY, "content": [{"type": "text"}]}},
        {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f"}},
        {"type": "content_block_start", "content_block": {"type": "text", "text": "x"}},
        {"type": "content_block_start", "content_block": {"type": "redacted_thinking"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "ping"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ],
)
def test_what_says_something_in_a_message_is_content(event: dict[str, Any]) -> None:
    assert said(event, MESSAGES, event["type"]) is CONTENT


@pytest.mark.parametrize("endpoint", EVERYWHERE)
def test_the_end_mark_and_the_unknown_are_content(endpoint: str) -> None:
    for data in (b"[DONE]", b"text", b"[]", b"7", b'"error"', b"null", b'{"a":1}', b"\xff\xfe"):
        assert said(data, endpoint) is CONTENT
    assert said(b"", endpoint, "done") is CONTENT


@pytest.mark.parametrize("endpoint", EVERYWHERE)
def test_heartbeats_say_nothing(endpoint: str) -> None:
    assert said({"type": "ping"}, endpoint) is PRELUDE
    assert said(b"", endpoint) is PRELUDE
    assert said(b" \n", endpoint) is PRELUDE
    assert said(b"", endpoint, "ping") is PRELUDE
    assert said(b"{}", endpoint, "keepalive") is PRELUDE
    assert said({"error": {"code": 502}}, endpoint, "ping") == Verdict(Kind.ERROR, 502)


def test_the_first_steps_of_one_endpoint_are_unknown_at_another() -> None:
    for endpoint in (CHAT, RESPONSES, "POST /rerank"):
        assert said({"type": "message_start", "message": EMPTY}, endpoint) is CONTENT
    assert said({"type": "response.created"}, MESSAGES) is CONTENT
    assert said(chunk({"role": "assistant"}), RESPONSES) is CONTENT


ERRORS: list[tuple[Any, int]] = [
    ({"error": {"message": "m", "type": "server_error", "param": None, "code": None}}, 500),
    ({"error": {"message": "m", "type": "tokens", "code": "rate_limit_exceeded"}}, 429),
    ({"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}, 429),
    ({"error": {"type": "invalid_request_error", "code": "context_length_exceeded"}}, 400),
    ({"error": {"type": "invalid_request_error", "code": "model_not_found"}}, 404),
    ({"error": {"type": "invalid_request_error", "code": "not in the table"}}, 400),
    ({"error": {"message": "m", "type": "BadRequestError", "param": None, "code": 400}}, 400),
    ({"object": "error", "message": "m", "type": "NotFoundError", "code": 404}, 404),
    ({"error": {"code": 502, "message": "m"}, "choices": [{"delta": {"content": ""}}]}, 502),
    ({"error": {"code": 503, "status": "UNAVAILABLE"}}, 503),
    ({"error": {"code": "429"}}, 429),
    ({"error": {"code": 200}}, 500),
    ({"error": {"code": True, "type": ["server_error"]}}, 500),
    ({"error": "the model is not loaded"}, 500),
    ({"error": "Model is overloaded", "error_type": "Overloaded"}, 429),
    ({"error": ["?"]}, 500),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, 529),
    ({"type": "error", "error": {"type": "rate_limit_error"}}, 429),
    ({"type": "error", "error": {"type": "api_error"}}, 500),
    ({"type": "error", "error": {"type": "authentication_error"}}, 401),
    ({"type": "error", "error": {"type": "permission_error"}}, 403),
    ({"type": "error", "error": {"type": "invalid_request_error"}}, 400),
    ({"type": "error", "error": {"type": "request_too_large"}}, 413),
    ({"type": "error", "error": {"type": "timeout_error"}}, 504),
    ({"type": "error", "error": {"type": "not_found_error"}}, 404),
    ({"type": "error", "code": "server_error", "message": "m", "param": None}, 500),
    ({"type": "error", "code": "rate_limit_exceeded", "message": "m"}, 429),
    ({"type": "error", "code": None, "message": "m"}, 500),
    ({"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded"}}}, 429),
    ({"type": "response.failed", "response": {"error": {"code": "invalid_prompt"}}}, 400),
    ({"type": "response.failed", "response": {"error": None}}, 500),
    ({"type": "response.failed", "response": None}, 500),
    ({"error": {"type": "upstream_error", "code": "upstream_timeout"}}, 504),
]


@pytest.mark.parametrize("endpoint", EVERYWHERE)
@pytest.mark.parametrize(("event", "status"), ERRORS)
def test_errors(event: Any, status: int, endpoint: str) -> None:
    assert said(event, endpoint) == Verdict(Kind.ERROR, status)
    assert said(event, endpoint, "error") == Verdict(Kind.ERROR, status)
    spaced = msgspec.json.format(msgspec.json.encode(event), indent=2)
    assert said(spaced, endpoint) == Verdict(Kind.ERROR, status)


@pytest.mark.parametrize("data", [b"overloaded", b"", b"[]", b"\xff", b'{"a":'])
def test_an_event_called_error_is_one_whatever_it_holds(data: bytes) -> None:
    assert said(data, CHAT, "error") == Verdict(Kind.ERROR, 500)


def test_a_choice_that_failed() -> None:
    failed = {"delta": {"content": ""}, "finish_reason": "error"}
    assert said({"choices": [failed]}) == Verdict(Kind.ERROR, 500)
    told = {**failed, "error": {"code": 429, "message": "m"}}
    assert said({"choices": [told]}) == Verdict(Kind.ERROR, 429)


@pytest.mark.parametrize("nothing", [None, False, "", {}, []])
def test_an_error_that_is_none(nothing: Any) -> None:
    assert said(chunk({"content": "x"}, error=nothing)) is CONTENT
    assert said(chunk({"role": "assistant"}, error=nothing)) is PRELUDE
    assert said({"type": "message_start", "message": EMPTY, "error": nothing}, MESSAGES) is PRELUDE


TEXTS = (
    '{"error": {"message": "boom", "code": 500}}',
    '"error"',
    '"type":"response.failed"',
    'data: {"error":"x"}\n\nevent: error\n\n',
    '\\"error\\"',
    "[DONE]",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_model_that_speaks_of_errors_has_said_something(text: str) -> None:
    assert said(chunk({"content": text})) is CONTENT
    arguments = {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
    assert said(chunk(arguments)) is CONTENT
    assert said({"choices": [{"text": text}]}, COMPLETIONS) is CONTENT
    delta = {"type": "text_delta", "text": text}
    assert said({"type": "content_block_delta", "delta": delta}, MESSAGES) is CONTENT
    assert said({"type": "response.output_text.delta", "delta": text}, RESPONSES) is CONTENT
    assert said({"type": "transcript.text.delta", "delta": text}, TRANSCRIPTIONS) is CONTENT


def test_an_error_further_in_is_not_of_the_call() -> None:
    filtered = {"content_filter_result": {"error": {"code": "content_filter_error"}}}
    choice = {"delta": {"content": "x"}, "finish_reason": None, **filtered}
    assert said({"choices": [choice]}) is CONTENT
    begun = {"type": "response.created", "response": {**BEGUN, "tools": [{"error": "x"}]}}
    assert said(begun, RESPONSES) is PRELUDE


@pytest.mark.parametrize("endpoint", EVERYWHERE)
def test_a_bomb_is_content(endpoint: str) -> None:
    for data in (
        b'{"error":' + b"[" * 100_000,
        b'{"choices":' + b'{"a":' * 100_000,
        b'{"type":"message_start","response.created":' + b"[" * 100_000,
    ):
        assert said(data, endpoint) is CONTENT


def test_a_giant_is_not_looked_into() -> None:
    text = b'{"error":"' + b"x" * LARGEST + b'"}'
    assert said(text) is CONTENT
    assert said(b'{"error":"' + b"x" * 1000 + b'"}').kind is Kind.ERROR


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=8)
    | st.sampled_from(["error", "message", "text", "response.created", "message_start"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "error",
                    "choices",
                    "delta",
                    "code",
                    "item",
                    "part",
                    "message",
                    "response",
                    "content_block",
                    "finish_reason",
                    "content",
                    "object",
                    "text",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(json_values, st.sampled_from(EVERYWHERE), st.sampled_from(["", "error", "ping", "x"]))
def test_it_never_raises(value: Any, endpoint: str, name: str) -> None:
    found = said(value, endpoint, name)
    assert found is CONTENT or found is PRELUDE or 400 <= found.status <= 599


@given(st.binary(max_size=40), st.sampled_from(EVERYWHERE))
def test_nor_for_rubbish(data: bytes, endpoint: str) -> None:
    for each in (data, b'{"error":' + data, b'{"type":"ping",' + data):
        found = said(each, endpoint)
        assert found is CONTENT or found is PRELUDE or 400 <= found.status <= 599


def test_statuses_are_those_of_errors() -> None:
    assert status_of() == 500
    assert status_of({"code": 399}, {"code": "9999"}, {"status": 600}, {"status": 418}) == 418
    assert status_of({"type": "API_ERROR"}) == 500
    assert status_of(None, "x", {"status_code": 403}) == 403
