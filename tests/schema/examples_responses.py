"""Requests to responses, as the reference shows them."""

from __future__ import annotations

from typing import Any

from tests.schema.example import LINK, PDF, PNG, Body, Example, Media

FUNCTION: Body = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
    "strict": True,
}


def respond(
    name: str,
    input: object = "Tell me a story.",
    *,
    media: tuple[Media, ...] = (),
    strict: bool = True,
    **more: Any,
) -> Example:
    body = {"model": "gpt-6-astra", "input": input, **more}
    return Example("POST /responses", name, body, media, strict)


def said(*parts: Body, role: str = "user") -> Body:
    return {"role": role, "content": list(parts)}


TEXT = {"type": "input_text", "text": "What is this?"}
IMAGE = {"type": "input_image", "image_url": LINK}

RESPONSES = [
    respond("the default one"),
    respond("instructions", instructions="Talk like a pirate.", max_output_tokens=1000),
    respond("easy messages", [{"role": "developer", "content": "Be brief."}, said(TEXT)]),
    respond(
        "typed messages",
        [
            {"type": "message", **said(TEXT)},
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "A lake.", "annotations": []}],
            },
        ],
    ),
    respond(
        "a picture by its link",
        [said(TEXT, IMAGE)],
        media=(("image", "input[0].content[1].image_url", None),),
    ),
    respond(
        "pictures in several items",
        [
            said({"type": "input_image", "image_url": PNG, "detail": "high"}),
            {"type": "message", **said(TEXT, IMAGE)},
        ],
        media=(
            ("image", "input[0].content[0].image_url", None),
            ("image", "input[1].content[1].image_url", None),
        ),
    ),
    respond(
        "a picture by its id",
        [said({"type": "input_image", "file_id": "file-1", "detail": "original"})],
    ),
    respond(
        "a file in the request",
        [said({"type": "input_file", "filename": "a.pdf", "file_data": PDF}, TEXT)],
        media=(("file", "input[0].content[0].file_data", None),),
    ),
    respond(
        "a file by its link",
        [said({"type": "input_file", "file_url": "https://a.example/a.pdf", "detail": "low"})],
        media=(("file_link", "input[0].content[0].file_url", None),),
    ),
    respond("a file by its id", [said({"type": "input_file", "file_id": "file-1"})]),
    respond(
        "sound",
        [said({"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}})],
        media=(("audio", "input[0].content[0].input_audio.data", "mp3"),),
    ),
    respond("a function", tools=[FUNCTION], tool_choice="auto", parallel_tool_calls=True),
    respond(
        "a function that must be called",
        tools=[FUNCTION],
        tool_choice={"type": "function", "name": "get_weather"},
    ),
    respond(
        "the result of a function",
        [
            said(TEXT),
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": "call_1",
                "name": "get_weather",
                "arguments": "{}",
                "status": "completed",
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "15 degrees"},
        ],
        tools=[FUNCTION],
    ),
    respond(
        "a picture that a function has made",
        [{"type": "function_call_output", "call_id": "call_1", "output": [IMAGE, TEXT]}],
        media=(("image", "input[0].output[0].image_url", None),),
    ),
    respond(
        "a tool of one's own",
        [
            {"type": "custom_tool_call", "call_id": "c", "name": "code", "input": "1"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "1"},
        ],
        tools=[
            {
                "type": "custom",
                "name": "code",
                "format": {"type": "grammar", "syntax": "regex", "definition": "[0-9]+"},
            }
        ],
        tool_choice={"type": "custom", "name": "code"},
    ),
    respond(
        "a search of the web",
        tools=[
            {
                "type": "web_search",
                "filters": {"allowed_domains": ["a.example"]},
                "user_location": {"type": "approximate", "country": "DE"},
            }
        ],
        tool_choice="required",
        include=["web_search_call.action.sources"],
    ),
    respond(
        "a search of files",
        tools=[{"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 20}],
    ),
    respond(
        "an MCP server",
        tools=[
            {
                "type": "mcp",
                "server_label": "dice",
                "server_url": "https://dice.example/sse",
                "require_approval": "never",
                "allowed_tools": ["roll"],
            }
        ],
    ),
    respond(
        "a connector",
        [{"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}],
        tools=[
            {
                "type": "mcp",
                "server_label": "calendar",
                "connector_id": "connector_googlecalendar",
                "authorization": "token",
                "require_approval": {"never": {"tool_names": ["read"]}},
            }
        ],
        previous_response_id="resp_1",
    ),
    respond(
        "an interpreter",
        tools=[{"type": "code_interpreter", "container": {"type": "auto"}}],
        max_tool_calls=3,
    ),
    respond(
        "drawing",
        tools=[{"type": "image_generation", "quality": "high", "partial_images": 2}],
    ),
    respond(
        "a picture drawn before",
        [
            {
                "type": "image_generation_call",
                "id": "ig_1",
                "status": "completed",
                "result": "iVBORw0KGgo=",
            },
            said(TEXT),
        ],
        media=(("image_data", "input[0].result", None),),
    ),
    respond(
        "a computer",
        [
            {
                "type": "computer_call_output",
                "call_id": "call_1",
                "output": {"type": "computer_screenshot", "image_url": PNG},
            }
        ],
        tools=[
            {
                "type": "computer_use_preview",
                "display_width": 1024,
                "display_height": 768,
                "environment": "browser",
            }
        ],
        truncation="auto",
        media=(("image", "input[0].output.image_url", None),),
    ),
    respond("a kind of tool that is new", tools=[{"type": "teleport"}], strict=False),
    respond("an item that is new", [{"type": "teleport_call", "to": "Bonn"}], strict=False),
    respond(
        "some of the tools",
        tools=[FUNCTION],
        tool_choice={
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "get_weather"}],
        },
    ),
    respond(
        "structured output",
        text={
            "format": {
                "type": "json_schema",
                "name": "step",
                "schema": {"type": "object"},
                "strict": True,
            },
            "verbosity": "low",
        },
    ),
    respond("JSON", text={"format": {"type": "json_object"}}),
    respond(
        "thinking",
        reasoning={"effort": "high", "summary": "auto"},
        include=["reasoning.encrypted_content"],
        store=False,
    ),
    respond(
        "thoughts of before",
        [
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "First,"}],
                "encrypted_content": "gAAA",
            },
            {"type": "compaction", "encrypted_content": "gAAA"},
        ],
    ),
    respond("a stream", stream=True, stream_options={"include_obfuscation": False}),
    respond("going on", previous_response_id="resp_1"),
    respond("a conversation", conversation="conv_1"),
    respond("a conversation as an object", conversation={"id": "conv_1"}),
    respond("earlier items", [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_2"}]),
    respond("in the background", background=True, metadata={"a": "b"}, service_tier="priority"),
    respond("probabilities", top_logprobs=5, temperature=1.5, top_p=0.5),
    Example("POST /responses", "a kept prompt alone", {"prompt": {"id": "pmpt_1"}}),
    Example(
        "POST /responses",
        "a kept prompt with pictures",
        {"prompt": {"id": "pmpt_1", "version": "2", "variables": {"who": "Ann", "it": IMAGE}}},
        (("image", "prompt.variables.it.image_url", None),),
    ),
    respond("nulls", tools=None, text=None, reasoning=None, conversation=None, include=None),
]
