"""Messages, as Anthropic and those who speak alike take them, and the count of their tokens."""

from __future__ import annotations

from ai_proxy_mw.schema.spec import (
    Anything,
    Fields,
    Get,
    Kind,
    ListOf,
    Number,
    Problem,
    Table,
    Text,
    Variants,
    Whole,
)
from ai_proxy_mw.schema.tables.common import (
    FLAG_OR_NULL,
    JSON_OBJECT,
    JSON_OBJECT_OR_NULL,
    TEXT_OR_NULL,
)
from ai_proxy_mw.schema.tables.messages_parts import CACHED, CONTENT, TEXTS

_TURN = Fields(fields={"content": CONTENT}, needed=("content",))

_MESSAGE = Variants(
    by="role",
    is_open=False,
    known={
        "user": _TURN,
        "assistant": _TURN,
        "system": Fields(fields={"content": TEXTS}, needed=("content",)),
    },
)

_SERVER_TOOL = Fields(fields={"name": Text(least=1)}, needed=("name",), is_open=True)

_TOOL = Variants(
    by="type",
    default="custom",
    known={
        "custom": Fields(
            fields={
                "name": Text(least=1, most=128),
                "input_schema": Fields(
                    fields={"type": Text(choices=("object",))}, needed=("type",), is_open=True
                ),
                "description": TEXT_OR_NULL,
                "strict": FLAG_OR_NULL,
                "defer_loading": FLAG_OR_NULL,
                "eager_input_streaming": FLAG_OR_NULL,
                "input_examples": ListOf(item=JSON_OBJECT),
                "allowed_callers": ListOf(item=Text()),
                **CACHED,
            },
            needed=("name", "input_schema"),
        ),
        # Tools that the provider knows have new names every few months; these are the old ones.
        "bash_20250124": _SERVER_TOOL,
        "code_execution_20250825": _SERVER_TOOL,
        "text_editor_20250728": _SERVER_TOOL,
        "web_fetch_20250910": _SERVER_TOOL,
        "web_search_20250305": _SERVER_TOOL,
    },
)

_PARALLEL = Fields(fields={"disable_parallel_tool_use": FLAG_OR_NULL})

_TOOL_CHOICE = Variants(
    by="type",
    known={
        "auto": _PARALLEL,
        "any": _PARALLEL,
        "none": Fields(fields={}),
        "tool": Fields(
            fields={"name": Text(least=1), "disable_parallel_tool_use": FLAG_OR_NULL},
            needed=("name",),
        ),
    },
    nullable=True,
)

_THINKING = Variants(
    by="type",
    known={
        "enabled": Fields(
            fields={"budget_tokens": Whole(least=1024), "display": TEXT_OR_NULL},
            needed=("budget_tokens",),
        ),
        "disabled": Fields(fields={}),
        "adaptive": Fields(fields={"display": TEXT_OR_NULL}),
    },
    nullable=True,
)


def _room_to_think(get: Get) -> Problem | None:
    """The `budget_tokens` of `thinking` are below `max_tokens`, unless there are tools."""
    budget = get("thinking", "budget_tokens")
    # Thinking between the calls of tools may take more than one answer.
    if budget is not None and not get("tools") and budget >= get("max_tokens"):
        return Problem(
            "thinking.budget_tokens",
            "invalid_value",
            "The 'budget_tokens' of 'thinking' must be below 'max_tokens'.",
        )
    return None


_COUNTED: dict[str, Kind] = {
    "model": Text(least=1),
    "messages": ListOf(item=_MESSAGE, least=1, most=100_000),
    "system": TEXTS,
    "tools": ListOf(item=_TOOL, nullable=True),
    "tool_choice": _TOOL_CHOICE,
    "thinking": _THINKING,
    "context_management": Anything(),
    "mcp_servers": ListOf(item=JSON_OBJECT, nullable=True),
    "output_config": JSON_OBJECT_OR_NULL,
    "output_format": Anything(),
    "speed": TEXT_OR_NULL,
    **CACHED,
}

MESSAGES = Table(
    endpoint="POST /messages",
    source="Anthropic API reference, Messages, Create a Message",
    body=Fields(
        fields={
            **_COUNTED,
            "max_tokens": Whole(least=0),  # none: only fills the provider's cache of prompts
            "container": Anything(),
            "inference_geo": TEXT_OR_NULL,
            "metadata": Fields(fields={"user_id": TEXT_OR_NULL}, nullable=True),
            "service_tier": TEXT_OR_NULL,
            "stop_sequences": ListOf(item=Text(), nullable=True),
            "stream": FLAG_OR_NULL,
            "temperature": Number(least=0, most=1, nullable=True),
            "top_k": Whole(least=0, nullable=True),
            "top_p": Number(least=0, most=1, nullable=True),
        },
        needed=("model", "messages", "max_tokens"),
        rule=_room_to_think,
    ),
)

COUNT_TOKENS = Table(
    endpoint="POST /messages/count_tokens",
    source="Anthropic API reference, Messages, Count tokens in a Message",
    body=Fields(fields=_COUNTED, needed=("model", "messages")),
)
