"""What the fake model says: the same to the same question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ai_proxy_mw.testing._call import Call

_ECHOED_WORDS = 40


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the caller offers."""

    name: str
    schema: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """A text in pieces, or the arguments of a tool call in pieces."""

    pieces: Sequence[str]
    tool: str | None
    cut: bool
    prompt_tokens: int

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def completion_tokens(self) -> int:
        return len(self.pieces)

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def texts(content: Any) -> list[str]:
    """Every text in a message's content, in whichever API's shape."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, list):
        return [text for part in content for text in texts(part)]
    if isinstance(content, dict):
        return texts(content.get("content")) + texts(content.get("text"))
    return []


def count_tokens(content: Any) -> int:
    """One token per word, which is all the precision a fake needs."""
    return sum(len(text.split()) for text in texts(content))


def compose(
    call: Call,
    *,
    heard: Any,
    limit: int,
    tool: Tool | None = None,
    schema: Any = None,
) -> Reply:
    """The reply to `heard`: a call of `tool` if given, an example of `schema` if given, else words.

    Words come one per piece and at most `limit` of them.
    """
    prompt_tokens = count_tokens(heard)
    if tool is not None:
        return Reply(_halves(example_json(tool.schema)), tool.name, False, prompt_tokens)
    if schema is not None:
        return Reply(_halves(example_json(schema)), None, False, prompt_tokens)
    words = call.traits.words
    if words is None:
        said = texts(heard)
        words = ["You", "said:", *(said[-1] if said else "nothing").split()[:_ECHOED_WORDS]]
    pieces = [word if i == 0 else f" {word}" for i, word in enumerate(words[:limit])]
    return Reply(pieces, None, len(words) > limit, prompt_tokens)


def _halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [text[:middle], text[middle:]]


def choose(tools: Sequence[Tool], wanted: str | None) -> Tool | None:
    """The tool that is asked for by name, else the first."""
    for tool in tools:
        if wanted is None or tool.name == wanted:
            return tool
    return None


def read_tools(offered: Any, schema_field: str) -> list[Tool]:
    """The functions among what the caller offers; `offered` may be anything at all."""
    return [
        Tool(item["name"], item.get(schema_field))
        for item in (offered if isinstance(offered, list) else [])
        if isinstance(item, dict) and isinstance(item.get("name"), str)
    ]


def example_json(schema: Any) -> str:
    """JSON text that satisfies a plain JSON schema."""
    return msgspec.json.encode(_example(schema)).decode()


def _example(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return {}
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type", "object")
    if isinstance(kind, list) and kind:
        kind = kind[0]
    properties = schema.get("properties")
    if kind == "object" and isinstance(properties, dict):
        return {name: _example(inner) for name, inner in properties.items()}
    plain = {"string": "example", "integer": 1, "number": 1.5, "boolean": True, "array": []}
    return plain.get(kind, {}) if isinstance(kind, str) else None
