"""Which answers may be given again."""

from __future__ import annotations

from typing import Any

import pytest

from ai_proxy_mw._endpoints import DEFAULT_ENDPOINTS
from ai_proxy_mw.caching.cacheable import (
    CACHEABLE,
    DEFAULT_CACHED,
    LEFT_OUT,
    is_certain,
    left_out_of,
    may_be_kept,
)

CHAT, RESPONSES, MESSAGES = "POST /chat/completions", "POST /responses", "POST /messages"
FUNCTION = {"type": "function", "function": {"name": "f"}}


def test_what_is_kept_by_default_may_be_asked_for() -> None:
    assert DEFAULT_CACHED < CACHEABLE <= DEFAULT_ENDPOINTS
    by_wish = CACHEABLE - DEFAULT_CACHED
    assert by_wish == {"POST /audio/speech", "POST /images/generations"}


@pytest.mark.parametrize(
    ("endpoint", "members"),
    [
        (CHAT, {}),
        ("GET /models", {}),
        (CHAT, {"store": False, "background": None, "web_search_options": None}),
        (CHAT, {"tools": [FUNCTION, {"type": "custom"}], "functions": [{"name": "f"}]}),
        (CHAT, {"tools": []}),
        (CHAT, {"tools": None}),
        (CHAT, {"modalities": ["text", "audio"], "audio": {"voice": "alloy"}}),
        (RESPONSES, {"prompt": {"id": "p"}, "tools": [{"type": "function", "name": "f"}]}),
        (RESPONSES, {"previous_response_id": None, "conversation": None}),
        (MESSAGES, {"tools": [{"name": "f"}, {"type": "custom", "name": "g"}]}),
        (MESSAGES, {"tools": [{"type": None, "name": "f"}]}),
    ],
)
def test_kept(endpoint: str, members: dict[str, Any]) -> None:
    assert may_be_kept(endpoint, members)


@pytest.mark.parametrize(
    ("endpoint", "members"),
    [
        ("POST /files", {}),
        ("GET /responses/{id}", {}),
        (CHAT, {"store": True}),
        (CHAT, {"store": "false"}),
        (RESPONSES, {"background": 1}),
        (RESPONSES, {"previous_response_id": "resp_1"}),
        (RESPONSES, {"previous_response_id": ""}),
        (RESPONSES, {"conversation": {"id": "c"}}),
        (RESPONSES, {"tools": [{"type": "function"}, {"type": "web_search"}]}),
        (RESPONSES, {"tools": [{"type": "mcp", "server_url": "https://x.example"}]}),
        (RESPONSES, {"tools": [{"type": ["function"]}]}),
        (CHAT, {"tools": [{"type": "Function"}]}),
        (CHAT, {"tools": {}}),
        (CHAT, {"tools": ""}),
        (CHAT, {"tools": [None]}),
        (CHAT, {"tools": ["function"]}),
        (CHAT, {"web_search_options": {}}),
        (CHAT, {"search_parameters": {"mode": "on"}}),
        (CHAT, {"plugins": [{"id": "web"}]}),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        (MESSAGES, {"tools": [{"type": "bash_20250124", "name": "bash"}]}),
        (MESSAGES, {"tools": [FUNCTION]}),
        (MESSAGES, {"mcp_servers": []}),
        (MESSAGES, {"container": "c"}),
    ],
)
def test_not_kept(endpoint: str, members: dict[str, Any]) -> None:
    assert not may_be_kept(endpoint, members)


@pytest.mark.parametrize("endpoint", ["POST /embeddings", "POST /moderations", "GET /models"])
def test_some_are_always_certain(endpoint: str) -> None:
    assert is_certain(endpoint, {})


@pytest.mark.parametrize(
    ("temperature", "certain"),
    [
        (0, True),
        (0.0, True),
        (-0.0, True),
        (0.1, False),
        (False, False),
        ("0", False),
        (None, False),
    ],
)
def test_the_others_are_at_no_temperature(temperature: Any, certain: bool) -> None:
    assert is_certain(CHAT, {"temperature": temperature}) is certain


def test_without_a_temperature_nothing_is_certain() -> None:
    assert not is_certain(CHAT, {})


def test_what_an_answer_repeats_is_not_left_out() -> None:
    assert left_out_of(CHAT) == LEFT_OUT
    assert left_out_of(RESPONSES) == {"client_metadata"}
