"""The older completions of a prompt."""

from __future__ import annotations

from ai_proxy_mw.schema.spec import Either, Fields, Get, ListOf, Problem, Table, Text, Whole
from ai_proxy_mw.schema.tables.common import (
    FLAG_OR_NULL,
    SAMPLING,
    TEXT_OR_NULL,
    TOKENS,
    stream_options_need_a_stream,
)


def _together(get: Get) -> Problem | None:
    """`best_of` is not below `n` and not streamed; `stream_options` needs `stream`."""
    best_of = get("best_of")
    if best_of is not None and best_of < (get("n") or 1):
        return Problem("best_of", "invalid_value", "The 'best_of' parameter must not be below 'n'.")
    if best_of is not None and best_of > 1 and get("stream"):
        return Problem("best_of", "invalid_value", "The best of several cannot be streamed.")
    return stream_options_need_a_stream(get)


COMPLETIONS = Table(
    endpoint="POST /completions",
    source="OpenAI API reference, Completions (legacy), Create completion",
    body=Fields(
        fields={
            "model": Text(least=1),
            "prompt": Either(
                kinds=(
                    Text(),
                    ListOf(item=Text(), least=1),
                    TOKENS,
                    ListOf(item=TOKENS, least=1),
                ),
                nullable=True,
            ),
            **SAMPLING,
            "best_of": Whole(least=0, most=20, nullable=True),
            "echo": FLAG_OR_NULL,
            "logprobs": Whole(least=0, most=5, nullable=True),
            "max_tokens": Whole(least=0, nullable=True),
            "suffix": TEXT_OR_NULL,
        },
        needed=("model", "prompt"),
        rule=_together,
    ),
)
