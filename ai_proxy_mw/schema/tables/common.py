"""What several endpoints take alike."""

from __future__ import annotations

from ai_proxy_mw.schema.spec import (
    Anything,
    Either,
    Fields,
    Flag,
    Get,
    Kind,
    ListOf,
    MapOf,
    Number,
    Problem,
    Text,
    Whole,
)

# Words that providers add to (reasoning_effort, service_tier, voice, tool_choice) are any text;
# what is listed as choices has been closed in each version of the references.

ID = Text(least=1)

JSON_OBJECT = MapOf(value=Anything())

JSON_OBJECT_OR_NULL = MapOf(value=Anything(), nullable=True)

METADATA = MapOf(value=Text(most=512), most=16, longest=64, nullable=True)

TEXT_OR_NULL = Text(nullable=True)

FLAG_OR_NULL = Flag(nullable=True)

TEXT_PART = Fields(
    fields={"text": Text(), "prompt_cache_breakpoint": JSON_OBJECT_OR_NULL}, needed=("text",)
)

FILE_DETAIL = Text(choices=("auto", "low", "high"), nullable=True)

DETAIL = Text(choices=("auto", "low", "high", "original"), nullable=True)

VOICE = Either(kinds=(Text(least=1), Fields(fields={"id": ID}, needed=("id",))))

STREAM_OPTIONS = Fields(
    fields={"include_usage": FLAG_OR_NULL, "include_obfuscation": FLAG_OR_NULL}, nullable=True
)

STOP = Either(kinds=(Text(), ListOf(item=Text(), most=4)), nullable=True)

SAMPLING: dict[str, Kind] = {
    "frequency_penalty": Number(least=-2, most=2, nullable=True),
    "logit_bias": MapOf(value=Number(least=-100, most=100), nullable=True),
    "n": Whole(least=1, most=128, nullable=True),
    "presence_penalty": Number(least=-2, most=2, nullable=True),
    "seed": Whole(nullable=True),
    "stop": STOP,
    "stream": FLAG_OR_NULL,
    "stream_options": STREAM_OPTIONS,
    "temperature": Number(least=0, most=2, nullable=True),
    "top_p": Number(least=0, most=1, nullable=True),
    "user": TEXT_OR_NULL,
}

SERVICE: dict[str, Kind] = {
    "metadata": METADATA,
    "moderation": JSON_OBJECT_OR_NULL,
    "parallel_tool_calls": FLAG_OR_NULL,
    "prompt_cache_key": TEXT_OR_NULL,
    "prompt_cache_options": JSON_OBJECT_OR_NULL,
    "prompt_cache_retention": TEXT_OR_NULL,
    "safety_identifier": Text(most=128, nullable=True),
    "service_tier": TEXT_OR_NULL,
    "store": FLAG_OR_NULL,
}

GRAMMAR = Fields(
    fields={"definition": Text(), "syntax": Text(choices=("lark", "regex"))},
    needed=("definition", "syntax"),
)

ALLOWED_TOOLS = Fields(
    fields={"mode": Text(choices=("auto", "required")), "tools": ListOf(item=JSON_OBJECT)},
    needed=("mode", "tools"),
)

USER_LOCATION: dict[str, Kind] = dict.fromkeys(
    ("city", "country", "region", "timezone"), TEXT_OR_NULL
)

TOKENS = ListOf(item=Whole(least=0), least=1)


def missing_one(name: str, message: str) -> Problem:
    """Of several members one must be there, and none is; `name` is the usual one."""
    return Problem(name, "missing_required_parameter", message)


def stream_options_need_a_stream(get: Get) -> Problem | None:
    """`stream_options` may only be set when `stream` is true."""
    if get("stream_options") is not None and get("stream") is not True:
        return Problem(
            "stream_options",
            "invalid_value",
            "The 'stream_options' parameter is only allowed when 'stream' is true.",
        )
    return None
