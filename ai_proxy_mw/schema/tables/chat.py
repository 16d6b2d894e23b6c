"""Chat completions."""

from __future__ import annotations

from ai_proxy_mw.schema.spec import (
    Either,
    Fields,
    Get,
    ListOf,
    Problem,
    Table,
    Text,
    Variants,
    Whole,
)
from ai_proxy_mw.schema.tables.chat_parts import ANY_PARTS, NAME, SAID, TEXTS
from ai_proxy_mw.schema.tables.common import (
    ALLOWED_TOOLS,
    FLAG_OR_NULL,
    GRAMMAR,
    ID,
    JSON_OBJECT,
    JSON_OBJECT_OR_NULL,
    SAMPLING,
    SERVICE,
    TEXT_OR_NULL,
    USER_LOCATION,
    VOICE,
    missing_one,
    stream_options_need_a_stream,
)

_NAMED = Fields(fields={"name": Text(least=1)}, needed=("name",))

# Mistral takes arguments as an object, too.
_FUNCTION_CALL = {"name": Text(least=1), "arguments": Either(kinds=(Text(), JSON_OBJECT))}

_TOOL_CALL = Variants(
    by="type",
    default="function",
    known={
        "function": Fields(
            fields={
                "id": TEXT_OR_NULL,
                "function": Fields(fields=_FUNCTION_CALL, needed=("name", "arguments")),
            },
            needed=("id", "function"),
        ),
        "custom": Fields(
            fields={
                "id": Text(),
                "custom": Fields(
                    fields={"name": Text(least=1), "input": Text()}, needed=("name", "input")
                ),
            },
            needed=("id", "custom"),
        ),
    },
)

_INSTEAD = ("tool_calls", "function_call", "audio", "refusal", "reasoning", "reasoning_content")


def _says_something(get: Get) -> Problem | None:
    """`content` must be there, unless there are tool calls, a spoken answer or a refusal."""
    if get("content") is not None or any(get(name) is not None for name in _INSTEAD):
        return None
    return missing_one("content", "An assistant's message needs content, unless it calls tools.")


_SYSTEM = Fields(fields={"content": TEXTS, "name": NAME}, needed=("content",))

MESSAGE = Variants(
    by="role",
    is_open=False,
    known={
        "developer": _SYSTEM,
        "system": _SYSTEM,
        "user": Fields(fields={"content": ANY_PARTS, "name": NAME}, needed=("content",)),
        "assistant": Fields(
            fields={
                "content": SAID,
                "refusal": TEXT_OR_NULL,
                "name": NAME,
                "audio": Fields(fields={"id": ID}, needed=("id",), nullable=True),
                "tool_calls": ListOf(item=_TOOL_CALL, nullable=True),
                "function_call": Fields(
                    fields=_FUNCTION_CALL, needed=("name", "arguments"), nullable=True
                ),
                # What upstreams other than OpenAI have thought.
                "reasoning": TEXT_OR_NULL,
                "reasoning_content": TEXT_OR_NULL,
            },
            rule=_says_something,
        ),
        "tool": Fields(
            fields={"content": ANY_PARTS, "tool_call_id": Text(), "name": NAME},
            needed=("content", "tool_call_id"),
        ),
        "function": Fields(
            fields={"content": TEXT_OR_NULL, "name": Text(least=1)}, needed=("content", "name")
        ),
    },
)

_FUNCTION = Fields(
    fields={
        "name": Text(least=1, most=64),
        "description": TEXT_OR_NULL,
        "parameters": JSON_OBJECT_OR_NULL,
        "strict": FLAG_OR_NULL,
    },
    needed=("name",),
)

_CUSTOM = Fields(
    fields={
        "name": Text(least=1),
        "description": TEXT_OR_NULL,
        "format": Variants(
            by="type",
            known={
                "text": Fields(fields={}),
                "grammar": Fields(fields={"grammar": GRAMMAR}, needed=("grammar",)),
            },
        ),
    },
    needed=("name",),
)

TOOL = Variants(
    by="type",
    known={
        "function": Fields(fields={"function": _FUNCTION}, needed=("function",)),
        "custom": Fields(fields={"custom": _CUSTOM}, needed=("custom",)),
    },
)

TOOL_CHOICE = Either(
    kinds=(
        Text(),
        Variants(
            by="type",
            known={
                "function": Fields(fields={"function": _NAMED}, needed=("function",)),
                "custom": Fields(fields={"custom": _NAMED}, needed=("custom",)),
                "allowed_tools": Fields(
                    fields={"allowed_tools": ALLOWED_TOOLS}, needed=("allowed_tools",)
                ),
            },
        ),
    ),
    nullable=True,
)

_JSON_SCHEMA = Fields(
    fields={
        "name": Text(least=1, most=64),
        "description": TEXT_OR_NULL,
        "schema": JSON_OBJECT_OR_NULL,
        "strict": FLAG_OR_NULL,
    },
    needed=("name",),
)

RESPONSE_FORMAT = Variants(
    by="type",
    nullable=True,
    known={
        "text": Fields(fields={}),
        "json_object": Fields(fields={}, is_open=True),  # some upstreams take a schema here
        "json_schema": Fields(fields={"json_schema": _JSON_SCHEMA}, needed=("json_schema",)),
    },
)

_WEB_SEARCH = Fields(
    fields={
        "search_context_size": TEXT_OR_NULL,
        "user_location": Variants(
            by="type",
            nullable=True,
            known={
                "approximate": Fields(
                    fields={"approximate": Fields(fields=USER_LOCATION)}, needed=("approximate",)
                )
            },
        ),
    },
    nullable=True,
)


def _together(get: Get) -> Problem | None:
    """`top_logprobs` needs `logprobs`; `stream_options` needs `stream`."""
    if get("top_logprobs") and get("logprobs") is not True:
        return Problem(
            "top_logprobs",
            "invalid_value",
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is true.",
        )
    return stream_options_need_a_stream(get)


CHAT = Table(
    endpoint="POST /chat/completions",
    source="OpenAI API reference, Chat, Create chat completion",
    body=Fields(
        fields={
            "model": Text(least=1),
            "messages": ListOf(item=MESSAGE, least=1),
            **SAMPLING,
            **SERVICE,
            "audio": Fields(
                fields={"format": Text(least=1), "voice": VOICE},
                needed=("format", "voice"),
                nullable=True,
            ),
            "function_call": Either(kinds=(Text(), _NAMED), nullable=True),
            "functions": ListOf(item=_FUNCTION, least=1, most=128, nullable=True),
            "logprobs": FLAG_OR_NULL,
            "max_completion_tokens": Whole(least=1, nullable=True),
            "max_tokens": Whole(least=1, nullable=True),
            "modalities": ListOf(item=Text(), nullable=True),
            "prediction": Variants(
                by="type",
                known={"content": Fields(fields={"content": TEXTS}, needed=("content",))},
                nullable=True,
            ),
            "reasoning_effort": TEXT_OR_NULL,
            "response_format": RESPONSE_FORMAT,
            "tool_choice": TOOL_CHOICE,
            "tools": ListOf(item=TOOL, most=128, nullable=True),
            "top_logprobs": Whole(least=0, most=20, nullable=True),
            "verbosity": TEXT_OR_NULL,
            "web_search_options": _WEB_SEARCH,
        },
        needed=("model", "messages"),
        rule=_together,
    ),
)
