"""/messages, the Anthropic shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ai_proxy_mw.testing._answer import Answer, event_stream, json_answer
from ai_proxy_mw.testing._call import JSON, Call
from ai_proxy_mw.testing._events import typed_event
from ai_proxy_mw.testing._reply import Reply, Tool, choose, compose, count_tokens, read_tools


def create(call: Call) -> Answer:
    call.required("model")
    messages = call.required("messages", list)
    call.required("max_tokens", int)
    reply = compose(
        call,
        heard=messages,
        limit=call.number("max_tokens", default=1),
        tool=_tool(call.data, messages),
    )
    if call.data.get("stream") is True:
        return event_stream(_events(call, reply))
    return json_answer(_finished(call, reply))


def count(call: Call) -> Answer:
    call.required("model")
    messages = call.required("messages", list)
    return json_answer({"input_tokens": count_tokens(messages)})


def _tool(data: JSON, messages: list[Any]) -> Tool | None:
    choice = data.get("tool_choice")
    how = choice if isinstance(choice, dict) else {}
    if how.get("type") == "none" or _answers_a_tool(messages):
        return None
    return choose(read_tools(data.get("tools"), "input_schema"), how.get("name"))


def _answers_a_tool(messages: list[Any]) -> bool:
    last = messages[-1] if messages else None
    content = last.get("content") if isinstance(last, dict) else None
    parts = content if isinstance(content, list) else []
    return any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts)


def _message(call: Call, reply: Reply) -> JSON:
    """As it is at its beginning: empty."""
    return {
        "id": f"msg_{call.key}",
        "type": "message",
        "role": "assistant",
        "model": call.data["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": reply.prompt_tokens, "output_tokens": 1},
    }


def _stop_reason(reply: Reply) -> str:
    if reply.tool is not None:
        return "tool_use"
    return "max_tokens" if reply.cut else "end_turn"


def _finished(call: Call, reply: Reply) -> JSON:
    message = _message(call, reply)
    block = _block(call, reply)
    if reply.tool is None:
        block["text"] = reply.text
    else:
        block["input"] = msgspec.json.decode(reply.text)
    message["content"] = [block]
    message["stop_reason"] = _stop_reason(reply)
    message["usage"]["output_tokens"] = reply.completion_tokens
    return message


def _block(call: Call, reply: Reply) -> JSON:
    if reply.tool is None:
        return {"type": "text", "text": ""}
    return {"type": "tool_use", "id": f"toolu_{call.key}", "name": reply.tool, "input": {}}


def _events(call: Call, reply: Reply) -> Iterator[bytes]:
    yield typed_event({"type": "message_start", "message": _message(call, reply)})
    block = _block(call, reply)
    yield typed_event({"type": "content_block_start", "index": 0, "content_block": block})
    yield typed_event({"type": "ping"})
    for piece in reply.pieces:
        yield typed_event(
            {"type": "content_block_delta", "index": 0, "delta": _delta(reply, piece)}
        )
    yield typed_event({"type": "content_block_stop", "index": 0})
    yield typed_event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": _stop_reason(reply), "stop_sequence": None},
            "usage": {"output_tokens": reply.completion_tokens},
        }
    )
    yield typed_event({"type": "message_stop"})


def _delta(reply: Reply, piece: str) -> JSON:
    if reply.tool is None:
        return {"type": "text_delta", "text": piece}
    return {"type": "input_json_delta", "partial_json": piece}
