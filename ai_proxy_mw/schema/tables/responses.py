"""Responses."""

from __future__ import annotations

from ai_proxy_mw.schema.spec import (
    Anything,
    Either,
    Fields,
    Get,
    Kind,
    ListOf,
    MapOf,
    Problem,
    Table,
    Text,
    Variants,
    Whole,
)
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
    missing_one,
    stream_options_need_a_stream,
)
from ai_proxy_mw.schema.tables.responses_parts import ITEM, PART


def _a_server(get: Get) -> Problem | None:
    """One of `server_url`, `connector_id` and `tunnel_id` must be there."""
    if all(get(name) is None for name in ("server_url", "connector_id", "tunnel_id")):
        return missing_one("server_url", "An MCP tool needs server_url, connector_id or tunnel_id.")
    return None


_WEB_SEARCH = Fields(
    fields={
        "filters": JSON_OBJECT_OR_NULL,
        "search_context_size": TEXT_OR_NULL,
        "search_content_types": ListOf(item=Text(), nullable=True),
        "user_location": Fields(fields={"type": TEXT_OR_NULL, **USER_LOCATION}, nullable=True),
    }
)

TOOL = Variants(
    by="type",
    known={
        "function": Fields(
            fields={
                "name": Text(least=1, most=128),
                "description": TEXT_OR_NULL,
                "parameters": JSON_OBJECT_OR_NULL,
                "strict": FLAG_OR_NULL,
                "defer_loading": FLAG_OR_NULL,
            },
            needed=("name",),
        ),
        "custom": Fields(
            fields={
                "name": Text(least=1),
                "description": TEXT_OR_NULL,
                "format": Variants(
                    by="type", known={"text": Fields(fields={}), "grammar": GRAMMAR}
                ),
                "defer_loading": FLAG_OR_NULL,
            },
            needed=("name",),
        ),
        "file_search": Fields(
            fields={
                "vector_store_ids": ListOf(item=Text()),
                "filters": JSON_OBJECT_OR_NULL,
                "max_num_results": Whole(least=1, most=50, nullable=True),
                "ranking_options": JSON_OBJECT_OR_NULL,
            },
            needed=("vector_store_ids",),
        ),
        "web_search": _WEB_SEARCH,
        "web_search_2025_08_26": _WEB_SEARCH,
        "web_search_preview": _WEB_SEARCH,
        "mcp": Fields(
            fields={
                "server_label": Text(least=1),
                "server_url": TEXT_OR_NULL,
                "connector_id": TEXT_OR_NULL,
                "tunnel_id": TEXT_OR_NULL,
                "server_description": TEXT_OR_NULL,
                "authorization": TEXT_OR_NULL,
                "headers": MapOf(value=Text(), nullable=True),
                "allowed_tools": Either(kinds=(ListOf(item=Text()), JSON_OBJECT), nullable=True),
                "require_approval": Either(kinds=(Text(), JSON_OBJECT), nullable=True),
                "defer_loading": FLAG_OR_NULL,
            },
            needed=("server_label",),
            rule=_a_server,
        ),
        "code_interpreter": Fields(
            fields={"container": Either(kinds=(Text(), JSON_OBJECT))}, needed=("container",)
        ),
        "image_generation": Fields(
            fields={
                "model": TEXT_OR_NULL,
                "output_compression": Whole(least=0, most=100, nullable=True),
                "partial_images": Whole(least=0, most=3, nullable=True),
            },
            is_open=True,
        ),
        "computer_use_preview": Fields(
            fields={
                "display_width": Whole(least=1),
                "display_height": Whole(least=1),
                "environment": Text(),
            },
            needed=("display_width", "display_height", "environment"),
        ),
    },
)

_NAMED = Fields(fields={"name": Text(least=1)}, needed=("name",))

TOOL_CHOICE = Either(
    kinds=(
        Text(),
        Variants(
            by="type",
            known={
                "function": _NAMED,
                "custom": _NAMED,
                "mcp": Fields(
                    fields={"server_label": Text(least=1), "name": TEXT_OR_NULL},
                    needed=("server_label",),
                ),
                "allowed_tools": ALLOWED_TOOLS,
            },
        ),
    ),
    nullable=True,
)

_FORMAT = Variants(
    by="type",
    nullable=True,
    known={
        "text": Fields(fields={}),
        "json_object": Fields(fields={}),
        "json_schema": Fields(
            fields={
                "name": Text(least=1, most=64),
                "schema": JSON_OBJECT,
                "description": TEXT_OR_NULL,
                "strict": FLAG_OR_NULL,
            },
            needed=("name", "schema"),
        ),
    },
)

_EARLIER = ("prompt", "previous_response_id", "conversation")


def _together(get: Get) -> Problem | None:
    """`model` and `input` must be there, unless something earlier has them; `conversation` and
    `previous_response_id` exclude each other; `stream_options` needs `stream`.
    """
    if get("conversation") is not None and get("previous_response_id") is not None:
        return Problem(
            "previous_response_id",
            "mutually_exclusive_parameters",
            "Send 'previous_response_id' or 'conversation', not both.",
        )
    if get("model") is None and get("prompt") is None:
        return missing_one("model", "Missing required parameter: 'model'.")
    if get("input") is None and all(get(name) is None for name in _EARLIER):
        return missing_one("input", "Missing required parameter: 'input'.")
    return stream_options_need_a_stream(get)


_SAMPLING: dict[str, Kind] = {
    name: SAMPLING[name] for name in ("stream", "stream_options", "temperature", "top_p", "user")
}

RESPONSES = Table(
    endpoint="POST /responses",
    source="OpenAI API reference, Responses, Create a model response",
    body=Fields(
        fields={
            "model": Text(least=1, nullable=True),
            "input": Either(kinds=(Text(), ListOf(item=ITEM)), nullable=True),
            **_SAMPLING,
            **SERVICE,
            "background": FLAG_OR_NULL,
            "context_management": ListOf(item=JSON_OBJECT, nullable=True),
            "conversation": Either(
                kinds=(Text(), Fields(fields={"id": ID}, needed=("id",))), nullable=True
            ),
            "include": ListOf(item=Text(), nullable=True),
            "instructions": TEXT_OR_NULL,
            "max_output_tokens": Whole(least=1, nullable=True),
            "max_tool_calls": Whole(least=1, nullable=True),
            "previous_response_id": TEXT_OR_NULL,
            "prompt": Fields(
                fields={
                    "id": ID,
                    "variables": MapOf(value=Either(kinds=(Text(), PART)), nullable=True),
                    "version": TEXT_OR_NULL,
                },
                needed=("id",),
                nullable=True,
            ),
            "reasoning": Fields(
                fields={
                    "context": TEXT_OR_NULL,
                    "effort": TEXT_OR_NULL,
                    "generate_summary": TEXT_OR_NULL,
                    "mode": TEXT_OR_NULL,
                    "summary": TEXT_OR_NULL,
                },
                nullable=True,
            ),
            "text": Fields(fields={"format": _FORMAT, "verbosity": TEXT_OR_NULL}, nullable=True),
            "tool_choice": TOOL_CHOICE,
            "tools": ListOf(item=TOOL, nullable=True),
            "top_logprobs": Whole(least=0, most=20, nullable=True),
            "truncation": TEXT_OR_NULL,
            "access_programs": Anything(),
            "background_options": Anything(),
            "image": Anything(),
        },
        rule=_together,
    ),
)
