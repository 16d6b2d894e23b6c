"""Server-sent events as providers write them."""

from __future__ import annotations

from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"


def data_event(value: Any) -> bytes:
    """An event without a name, as in chat completions."""
    return b"data: %b\n\n" % msgspec.json.encode(value)


def typed_event(value: dict[str, Any]) -> bytes:
    """An event named by its `type`, as in responses and messages."""
    name: str = value["type"]
    return b"event: %b\n%b" % (name.encode(), data_event(value))
