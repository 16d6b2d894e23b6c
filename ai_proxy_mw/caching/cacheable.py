"""Which answers may be given again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_CACHED = frozenset(
    {
        "POST /chat/completions",
        "POST /completions",
        "POST /embeddings",
        "POST /messages",
        "GET /models",
        "POST /moderations",
        "POST /responses",
    }
)
"""What is kept unless the owner says otherwise."""

CACHEABLE = DEFAULT_CACHED | {"POST /audio/speech", "POST /images/generations"}
"""The most that an owner may ask for."""

LEFT_OUT = frozenset(
    {
        "client_metadata",
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "user",
    }
)
"""Members that name the caller or help the provider, and do not change what is answered."""

_REPEATED = LEFT_OUT - {"client_metadata"}
"""What a response object says again. In another's answer, that would tell who had asked first."""

_CERTAIN = frozenset({"POST /embeddings", "POST /moderations"})

_KEEPS = ("background", "store")
_GOES_ON = ("conversation", "previous_response_id")
# Of Anthropic, of OpenAI; then of xAI (search_parameters) and of OpenRouter (plugins).
_ACTS = ("container", "mcp_servers", "web_search_options", "search_parameters", "plugins")

_CALLER_RUNS = {"POST /messages": (None, "custom")}
"""Types of the tools that only the caller runs; other endpoints know `function`, too."""


def may_be_kept(endpoint: str, members: Mapping[str, Any]) -> bool:
    """Whether the same call again may have the same answer.

    Not so where the provider keeps something, goes on from what it has kept, acts or looks
    things up.
    """
    if endpoint not in CACHEABLE or any(members.get(name) for name in _KEEPS):
        return False
    # Empty values count: `web_search_options: {}` switches the search on.
    if any(members.get(name) is not None for name in _GOES_ON + _ACTS):
        return False
    tools = members.get("tools")
    return tools is None or _are_the_callers(endpoint, tools)


def _are_the_callers(endpoint: str, tools: Any) -> bool:
    types = _CALLER_RUNS.get(endpoint, (None, "custom", "function"))
    return isinstance(tools, list) and all(
        isinstance(tool, dict) and tool.get("type") in types for tool in tools
    )


def is_certain(endpoint: str, members: Mapping[str, Any]) -> bool:
    """Whether a model would give the same answer anyhow, as far as it can."""
    if endpoint in _CERTAIN or endpoint.startswith("GET "):
        return True
    temperature = members.get("temperature")
    return type(temperature) in (int, float) and temperature == 0


def left_out_of(endpoint: str) -> frozenset[str]:
    """The members that make no difference to the answers of an endpoint."""
    return LEFT_OUT - _REPEATED if endpoint == "POST /responses" else LEFT_OUT
