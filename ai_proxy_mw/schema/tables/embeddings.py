"""Embeddings."""

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
from ai_proxy_mw.schema.tables.chat import MESSAGE
from ai_proxy_mw.schema.tables.chat_parts import IMAGE_URL
from ai_proxy_mw.schema.tables.common import TEXT_OR_NULL, TEXT_PART, TOKENS, missing_one


def _something(get: Get) -> Problem | None:
    """`input`, or `messages`, must be there."""
    if get("input") is None and get("messages") is None:
        return missing_one("input", "Missing required parameter: 'input'.")
    return None


# OpenRouter's inputs of text and pictures.
_PARTS = Fields(
    fields={
        "content": ListOf(
            item=Variants(by="type", known={"text": TEXT_PART, "image_url": IMAGE_URL}), least=1
        )
    },
    needed=("content",),
)

EMBEDDINGS = Table(
    endpoint="POST /embeddings",
    source="OpenAI API reference, Embeddings, Create embeddings",
    body=Fields(
        fields={
            "model": Text(least=1),
            "input": Either(
                kinds=(
                    Text(least=1),
                    ListOf(item=Text(), least=1, most=2048),
                    ListOf(item=Whole(least=0), least=1, most=2048),
                    ListOf(item=TOKENS, least=1, most=2048),
                    ListOf(item=_PARTS, least=1),
                )
            ),
            "messages": ListOf(item=MESSAGE, least=1),  # vLLM's in the place of `input`
            "dimensions": Whole(least=1, nullable=True),
            # The last two are vLLM's.
            "encoding_format": Text(
                choices=("float", "base64", "bytes", "bytes_only"), nullable=True
            ),
            "user": TEXT_OR_NULL,
        },
        needed=("model",),
        rule=_something,
    ),
)
