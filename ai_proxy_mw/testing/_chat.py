"""/chat/completions and /completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ai_proxy_mw.testing._answer import Answer, event_stream, json_answer, page
from ai_proxy_mw.testing._call import CREATED, JSON, Call, Refusal
from ai_proxy_mw.testing._events import DONE, data_event
from ai_proxy_mw.testing._reply import Reply, Tool, choose, compose, read_tools

_NO_LIMIT = 100_000


def create(call: Call) -> Answer:
    _check_options(call)
    call.required("model")
    messages = call.required("messages", list)
    reply = compose(
        call,
        heard=messages,
        limit=call.number("max_completion_tokens", "max_tokens", default=_NO_LIMIT),
        tool=_tool(call.data, messages),
        schema=_schema(call.data.get("response_format")),
    )
    if call.data.get("stream") is True:
        return event_stream(_chunks(call, reply))
    return json_answer(_completion(call, reply))


def _tool(data: JSON, messages: list[Any]) -> Tool | None:
    choice = data.get("tool_choice")
    last = messages[-1] if messages else None
    if choice == "none" or (isinstance(last, dict) and last.get("role") == "tool"):
        return None
    offered = data.get("tools")
    functions = [_function(item) for item in offered] if isinstance(offered, list) else []
    named = _function(choice)
    wanted = named.get("name") if isinstance(named, dict) else None
    return choose(read_tools(functions, "parameters"), wanted)


def _function(item: Any) -> Any:
    return item.get("function") if isinstance(item, dict) else None


def _schema(wanted: Any) -> Any:
    """The JSON schema to answer in; any object when the caller only asks for JSON."""
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return None
    named = wanted.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    return schema or {"properties": {"answer": {"type": "string"}}}


def _usage(reply: Reply, count: int = 1) -> JSON:
    completion = reply.completion_tokens * count
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": reply.prompt_tokens + completion,
    }


def _finish(reply: Reply) -> str:
    if reply.tool is not None:
        return "tool_calls"
    return "length" if reply.cut else "stop"


def _tool_call(call: Call, reply: Reply, index: int) -> JSON:
    return {
        "id": f"call_{call.key}{index}",
        "type": "function",
        "function": {"name": reply.tool, "arguments": reply.text},
    }


def _message(call: Call, reply: Reply, index: int) -> JSON:
    message: JSON = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.tool is not None:
        message["content"] = None
        message["tool_calls"] = [_tool_call(call, reply, index)]
    return message


def _completion(call: Call, reply: Reply) -> JSON:
    count = call.number("n", default=1, most=128)
    return {
        "id": f"chatcmpl-{call.key}",
        "object": "chat.completion",
        "created": CREATED,
        "model": call.data["model"],
        "choices": [
            {
                "index": index,
                "message": _message(call, reply, index),
                "logprobs": None,
                "finish_reason": _finish(reply),
            }
            for index in range(count)
        ],
        "usage": _usage(reply, count),
        "system_fingerprint": "fp_fake",
    }


def _check_options(call: Call) -> None:
    if "stream_options" in call.data and not call.traits.stream_options:
        raise Refusal("Unknown parameter: 'stream_options'.", param="stream_options")


def _with_usage(data: JSON) -> bool:
    options = data.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _chunks(call: Call, reply: Reply) -> Iterator[bytes]:
    count = call.number("n", default=1, most=128)
    chunk: JSON = {
        "id": f"chatcmpl-{call.key}",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": call.data["model"],
        "system_fingerprint": "fp_fake",
    }
    tail: JSON = {"usage": None} if _with_usage(call.data) else {}
    for delta, finish in _deltas(call, reply):
        for index in range(count):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            yield data_event({**chunk, "choices": [choice], **tail})
    if tail:
        yield data_event({**chunk, "choices": [], "usage": _usage(reply, count)})
    yield DONE


def _deltas(call: Call, reply: Reply) -> Iterator[tuple[JSON, str | None]]:
    if reply.tool is None:
        yield {"role": "assistant", "content": ""}, None
        for piece in reply.pieces:
            yield {"content": piece}, None
    else:
        opening = _tool_call(call, reply, 0)
        opening["function"] = {"name": reply.tool, "arguments": ""}
        first = {"index": 0, **opening}
        yield {"role": "assistant", "content": None, "tool_calls": [first]}, None
        for piece in reply.pieces:
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}, None
    yield {}, _finish(reply)


def _stored(call: Call, id: str) -> JSON:
    return {
        "id": id,
        "object": "chat.completion",
        "created": CREATED,
        "model": "fake-1",
        "metadata": call.data.get("metadata") if call.method == "POST" else {},
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Stored.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def list_stored(call: Call) -> Answer:
    return json_answer(page([_stored(call, "chatcmpl-1"), _stored(call, "chatcmpl-2")]))


def get_stored(call: Call) -> Answer:
    return json_answer(_stored(call, call.id))


def delete_stored(call: Call) -> Answer:
    return json_answer({"object": "chat.completion.deleted", "id": call.id, "deleted": True})


def stored_messages(call: Call) -> Answer:
    message = {"id": f"{call.id}-0", "role": "user", "content": "Hello", "content_parts": None}
    return json_answer(page([message]))


def complete(call: Call) -> Answer:
    """The older /completions."""
    _check_options(call)
    call.required("model")
    prompt = call.required("prompt", (str, list))
    limit = call.number("max_tokens", default=_NO_LIMIT)
    reply = compose(call, heard=prompt, limit=limit)
    if call.data.get("stream") is True:
        return event_stream(_text_chunks(call, reply))
    count = call.number("n", default=1, most=128)
    choices = [_text_choice(i, reply.text, _finish(reply)) for i in range(count)]
    return json_answer(_text_completion(call, choices, usage=_usage(reply, count)))


def _text_choice(index: int, text: str, finish: str | None) -> JSON:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _text_completion(call: Call, choices: list[JSON], **usage: JSON | None) -> JSON:
    return {
        "id": f"cmpl-{call.key}",
        "object": "text_completion",
        "created": CREATED,
        "model": call.data["model"],
        "choices": choices,
        **usage,
    }


def _text_chunks(call: Call, reply: Reply) -> Iterator[bytes]:
    tail: dict[str, JSON | None] = {"usage": None} if _with_usage(call.data) else {}
    for piece in reply.pieces:
        yield data_event(_text_completion(call, [_text_choice(0, piece, None)], **tail))
    yield data_event(_text_completion(call, [_text_choice(0, "", _finish(reply))], **tail))
    if tail:
        yield data_event(_text_completion(call, [], usage=_usage(reply)))
    yield DONE
