"""/responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ai_proxy_mw.testing._answer import Answer, event_stream, json_answer, page
from ai_proxy_mw.testing._call import CREATED, JSON, Call
from ai_proxy_mw.testing._events import typed_event
from ai_proxy_mw.testing._reply import Reply, Tool, choose, compose, read_tools

_NO_LIMIT = 100_000


def create(call: Call) -> Answer:
    call.required("model")
    heard = call.required("input", (str, list))
    limit = call.number("max_output_tokens", default=_NO_LIMIT)
    reply = compose(call, heard=heard, limit=limit, tool=_tool(call.data, heard))
    if call.data.get("stream") is True:
        return event_stream(_events(call, reply))
    if call.data.get("background") is True:
        return json_answer(_response(call, _id(call), "queued"))
    return json_answer(_finished(call, reply))


def get_stored(call: Call) -> Answer:
    return json_answer(_response(call, call.id, "completed"))


def cancel(call: Call) -> Answer:
    return json_answer(_response(call, call.id, "cancelled"))


def delete_stored(call: Call) -> Answer:
    return json_answer({"id": call.id, "object": "response", "deleted": True})


def input_items(call: Call) -> Answer:
    part = {"type": "input_text", "text": "Hello"}
    item = {"id": f"{call.id}_0", "type": "message", "role": "user", "content": [part]}
    return json_answer(page([item]))


def _id(call: Call) -> str:
    return f"resp_{call.key}"


def _tool(data: JSON, heard: Any) -> Tool | None:
    choice = data.get("tool_choice")
    last = heard[-1] if isinstance(heard, list) and heard else None
    answered = isinstance(last, dict) and last.get("type") == "function_call_output"
    if choice == "none" or answered:
        return None
    wanted = choice.get("name") if isinstance(choice, dict) else None
    return choose(read_tools(data.get("tools"), "parameters"), wanted)


def _response(call: Call, id: str, status: str) -> JSON:
    data = call.data if call.body else {}
    return {
        "id": id,
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "background": data.get("background", False),
        "error": None,
        "incomplete_details": None,
        "instructions": data.get("instructions"),
        "max_output_tokens": data.get("max_output_tokens"),
        "metadata": data.get("metadata") or {},
        "model": data.get("model", "fake-1"),
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": data.get("previous_response_id"),
        "temperature": 1.0,
        "tool_choice": data.get("tool_choice", "auto"),
        "tools": data.get("tools") or [],
        "top_p": 1.0,
        "usage": None,
    }


def _finished(call: Call, reply: Reply) -> JSON:
    response = _response(call, _id(call), "incomplete" if reply.cut else "completed")
    if reply.cut:
        response["incomplete_details"] = {"reason": "max_output_tokens"}
    response["output"] = [_item(call, reply)]
    response["usage"] = {
        "input_tokens": reply.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": reply.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.total_tokens,
    }
    return response


def _text_part(text: str) -> JSON:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _item(call: Call, reply: Reply, *, done: bool = True) -> JSON:
    """What the model put out; before it is `done`, an empty one."""
    status = "completed" if done else "in_progress"
    if reply.tool is not None:
        return {
            "id": f"fc_{call.key}",
            "type": "function_call",
            "status": status,
            "call_id": f"call_{call.key}",
            "name": reply.tool,
            "arguments": reply.text if done else "",
        }
    return {
        "id": f"msg_{call.key}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [_text_part(reply.text)] if done else [],
    }


def _events(call: Call, reply: Reply) -> Iterator[bytes]:
    for number, event in enumerate(_told(call, reply)):
        yield typed_event({**event, "sequence_number": number})


def _told(call: Call, reply: Reply) -> Iterator[JSON]:
    begun = _response(call, _id(call), "in_progress")
    item = _item(call, reply, done=False)
    finished = _finished(call, reply)
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    where = {"item_id": item["id"], "output_index": 0}
    yield from _text_told(where, reply) if reply.tool is None else _tool_told(where, reply)
    yield {
        "type": "response.output_item.done",
        "output_index": 0,
        "item": finished["output"][0],
    }
    yield {"type": f"response.{finished['status']}", "response": finished}


def _text_told(where: JSON, reply: Reply) -> Iterator[JSON]:
    where = {**where, "content_index": 0}
    yield {"type": "response.content_part.added", **where, "part": _text_part("")}
    for piece in reply.pieces:
        yield {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **where, "text": reply.text, "logprobs": []}
    yield {"type": "response.content_part.done", **where, "part": _text_part(reply.text)}


def _tool_told(where: JSON, reply: Reply) -> Iterator[JSON]:
    kind = "response.function_call_arguments"
    for piece in reply.pieces:
        yield {"type": f"{kind}.delta", **where, "delta": piece}
    yield {"type": f"{kind}.done", **where, "name": reply.tool, "arguments": reply.text}
