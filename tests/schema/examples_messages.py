"""Requests to messages and messages/count_tokens, as the reference shows them."""

from __future__ import annotations

from typing import Any

from tests.schema.example import LINK, Body, Example, Media

TOOL: Body = {
    "name": "get_weather",
    "description": "The weather at a place",
    "input_schema": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}
CACHED: Body = {"cache_control": {"type": "ephemeral"}}
IMAGE: Body = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
}
DOCUMENT: Body = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQK"},
}


def text(words: str = "What is this?", **more: Any) -> Body:
    return {"type": "text", "text": words, **more}


def user(*blocks: Body) -> Body:
    return {"role": "user", "content": list(blocks)}


def message(
    name: str,
    *messages: Body,
    media: tuple[Media, ...] = (),
    strict: bool = True,
    **more: Any,
) -> Example:
    body = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 1024,
        "messages": list(messages or [{"role": "user", "content": "Hello, Claude"}]),
        **more,
    }
    return Example("POST /messages", name, body, media, strict)


def count(name: str, *messages: Body, media: tuple[Media, ...] = (), **more: Any) -> Example:
    body = {
        "model": "claude-sonnet-4-5",
        "messages": list(messages or [{"role": "user", "content": "Hello, Claude"}]),
        **more,
    }
    return Example("POST /messages/count_tokens", name, body, media)


DATA = "messages[0].content[0].source.data"

MESSAGES = [
    message("the default one"),
    message(
        "several turns, the last one begun",
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "What is the Latin for ant? (A) Apoidea (B) Formicidae"},
        {"role": "assistant", "content": "The answer is ("},
    ),
    message("a system text", system="You are a pirate."),
    message("system blocks, cached", system=[text("You are a pirate."), text("A book.", **CACHED)]),
    message(
        "a system message on the way",
        {"role": "user", "content": "Hello"},
        {"role": "system", "content": [text("Be brief.")]},
    ),
    message("a picture", user(IMAGE, text()), media=(("image_data", DATA, "image/png"),)),
    message(
        "a picture by its link",
        user({"type": "image", "source": {"type": "url", "url": LINK}}, text()),
        media=(("image_link", "messages[0].content[0].source.url", None),),
    ),
    message(
        "a picture by its id",
        user({"type": "image", "source": {"type": "file", "file_id": "file_1"}}),
    ),
    message(
        "several pictures",
        user(text("One:"), IMAGE, text("Two:"), IMAGE),
        media=(
            ("image_data", "messages[0].content[1].source.data", "image/png"),
            ("image_data", "messages[0].content[3].source.data", "image/png"),
        ),
    ),
    message("a document", user(DOCUMENT, text()), media=(("file", DATA, None),)),
    message(
        "a document by its link, cited",
        user(
            {
                "type": "document",
                "source": {"type": "url", "url": "https://a.example/a.pdf"},
                "title": "A",
                "context": "Old.",
                "citations": {"enabled": True},
                **CACHED,
            }
        ),
        media=(("file_link", "messages[0].content[0].source.url", None),),
    ),
    message(
        "a plain document",
        user(
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "The grass."},
            }
        ),
    ),
    message(
        "a document in blocks",
        user({"type": "document", "source": {"type": "content", "content": [text(), IMAGE]}}),
        media=(
            ("image_data", "messages[0].content[0].source.content[1].source.data", "image/png"),
        ),
    ),
    message("a tool", tools=[TOOL], tool_choice={"type": "auto"}),
    message("a tool with its type", tools=[{"type": "custom", **TOOL, **CACHED}]),
    message("a tool of the null type", tools=[{"type": None, **TOOL}]),
    message(
        "a tool that must be called",
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
    ),
    message("any tool", tools=[TOOL], tool_choice={"type": "any"}),
    message("no tool", tools=[TOOL], tool_choice={"type": "none"}),
    message(
        "a tool of the provider",
        tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
    ),
    message("a tool that is new", tools=[{"type": "oracle_20270101", "name": "o"}], strict=False),
    message(
        "the result of a tool",
        {"role": "user", "content": "What is the weather in Bonn?"},
        {
            "role": "assistant",
            "content": [
                text("I will look."),
                {
                    "type": "tool_use",
                    "id": "toolu_1",
                    "name": "get_weather",
                    "input": {"location": "Bonn"},
                },
            ],
        },
        user({"type": "tool_result", "tool_use_id": "toolu_1", "content": "15 degrees"}),
        tools=[TOOL],
    ),
    message("an empty result", user({"type": "tool_result", "tool_use_id": "toolu_1"})),
    message(
        "a failed tool",
        user({"type": "tool_result", "tool_use_id": "t", "content": "none", "is_error": True}),
    ),
    message(
        "a picture that a tool has made",
        user({"type": "tool_result", "tool_use_id": "toolu_1", "content": [text(), IMAGE]}),
        media=(("image_data", "messages[0].content[0].content[1].source.data", "image/png"),),
    ),
    message(
        "results of a search",
        user(
            {
                "type": "search_result",
                "source": "https://a.example",
                "title": "A",
                "content": [text()],
                "citations": {"enabled": True},
            }
        ),
    ),
    message("thinking", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048),
    message(
        "thinking between the calls of tools",
        thinking={"type": "enabled", "budget_tokens": 4096},
        tools=[TOOL],
    ),
    message("no thinking", thinking={"type": "disabled"}),
    message("thinking as it likes", thinking={"type": "adaptive"}, output_config={"effort": "low"}),
    message(
        "thoughts of before",
        {"role": "user", "content": "Why?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "First,", "signature": "EqQB"},
                {"type": "redacted_thinking", "data": "EmwK"},
                text("Because."),
            ],
        },
    ),
    message(
        "a search of before",
        {
            "role": "assistant",
            "content": [
                {
                    "type": "server_tool_use",
                    "id": "srvtoolu_1",
                    "name": "web_search",
                    "input": {"query": "ants"},
                },
                {
                    "type": "web_search_tool_result",
                    "tool_use_id": "srvtoolu_1",
                    "content": [
                        {
                            "type": "web_search_result",
                            "url": "https://a.example",
                            "title": "A",
                            "encrypted_content": "EqQB",
                        }
                    ],
                },
                {
                    "type": "web_fetch_tool_result",
                    "tool_use_id": "srvtoolu_2",
                    "content": {
                        "type": "web_fetch_result",
                        "url": "https://a.example/a.pdf",
                        "content": DOCUMENT,
                    },
                },
            ],
        },
        media=(("file", "messages[0].content[2].content.content.source.data", None),),
    ),
    message("a cached turn", user(text(cache_control={"type": "ephemeral", "ttl": "1h"}))),
    message(
        "a cached picture", user({**IMAGE, **CACHED}), media=(("image_data", DATA, "image/png"),)
    ),
    message("a stream", stream=True),
    message("only the cache is filled", max_tokens=0),
    message(
        "each way of sampling",
        temperature=1,
        top_k=5,
        top_p=0.7,
        stop_sequences=["\n\nHuman:"],
        metadata={"user_id": "13803d75"},
        service_tier="standard_only",
    ),
    message(
        "MCP servers",
        mcp_servers=[{"type": "url", "url": "https://mcp.example/sse", "name": "a"}],
    ),
    message("a block that is new", user({"type": "smell", "smell": "fresh"}), strict=False),
    count("the default one", system="You are a scientist."),
    count("a tool", tools=[TOOL]),
    count("a picture", user(IMAGE), media=(("image_data", DATA, "image/png"),)),
    count("a document", user(DOCUMENT), media=(("file", DATA, None),)),
    count("thinking", thinking={"type": "enabled", "budget_tokens": 16000}),
]
