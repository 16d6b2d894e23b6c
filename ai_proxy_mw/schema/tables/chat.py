"""Chat completions, and the older completions."""

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
    Media,
    Number,
    Problem,
    Table,
    Text,
    Variants,
    Whole,
)

# Words that providers add to (reasoning_effort, service_tier, voice, tool_choice) are any text;
# what is listed here as choices has been the same in each version of the reference.

JSON_OBJECT = MapOf(value=Anything())

METADATA = MapOf(value=Text(most=512), most=16, longest=64, nullable=True)

TEXT_PART = Fields(fields={"text": Text()}, needed=("text",))

DETAIL = Text(choices=("auto", "low", "high"), nullable=True)

IMAGE_URL = Fields(
    fields={
        "image_url": Fields(
            fields={"url": Media(media="image"), "detail": DETAIL},
            needed=("url",),
        )
    },
    needed=("image_url",),
)

INPUT_AUDIO = Fields(
    fields={
        "input_audio": Fields(
            fields={
                "data": Media(media="audio", declared="format"),
                "format": Text(choices=("wav", "mp3")),
            },
            needed=("data", "format"),
        )
    },
    needed=("input_audio",),
)


def _one_file(get: Get) -> Problem | None:
    if get("file_data") is None and get("file_id") is None:
        return Problem(
            "file_data",
            "missing_required_parameter",
            "A file needs file_data or file_id.",
        )
    return None


FILE = Fields(
    fields={
        "file": Fields(
            fields={
                "file_data": Media(media="file", nullable=True),
                "file_id": Text(least=1, nullable=True),
                "filename": Text(most=512, nullable=True),
            },
            rule=_one_file,
        )
    },
    needed=("file",),
)

VIDEO_URL = Fields(
    fields={"video_url": Fields(fields={"url": Text(least=1)}, needed=("url",))},
    needed=("video_url",),
)


def _content(parts: dict[str, Fields], *, nullable: bool = False) -> Kind:
    return Either(
        kinds=(Text(), ListOf(item=Variants(by="type", known=parts), least=1)), nullable=nullable
    )


_TEXTS = {"text": TEXT_PART}

_FUNCTION_CALL = Fields(
    fields={"name": Text(least=1), "arguments": Text()}, needed=("name", "arguments")
)

_TOOL_CALL = Variants(
    by="type",
    known={
        "function": Fields(
            fields={"id": Text(), "function": _FUNCTION_CALL}, needed=("id", "function")
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


def _says_something(get: Get) -> Problem | None:
    if get("content") is not None or any(get(name) is not None for name in _INSTEAD):
        return None
    return Problem(
        "content",
        "missing_required_parameter",
        "An assistant's message needs content, unless it calls tools.",
    )


_INSTEAD = ("tool_calls", "function_call", "audio", "refusal")

_SYSTEM = Fields(
    fields={"content": _content(_TEXTS), "name": Text(nullable=True)}, needed=("content",)
)

MESSAGE = Variants(
    by="role",
    is_open=False,
    known={
        "developer": _SYSTEM,
        "system": _SYSTEM,
        "user": Fields(
            fields={
                "content": _content(
                    {
                        "text": TEXT_PART,
                        "image_url": IMAGE_URL,
                        "input_audio": INPUT_AUDIO,
                        "file": FILE,
                        "video_url": VIDEO_URL,
                    }
                ),
                "name": Text(nullable=True),
            },
            needed=("content",),
        ),
        "assistant": Fields(
            fields={
                "content": _content(
                    {
                        "text": TEXT_PART,
                        "refusal": Fields(fields={"refusal": Text()}, needed=("refusal",)),
                    },
                    nullable=True,
                ),
                "refusal": Text(nullable=True),
                "name": Text(nullable=True),
                "audio": Fields(fields={"id": Text(least=1)}, needed=("id",), nullable=True),
                "tool_calls": ListOf(item=_TOOL_CALL, least=1, nullable=True),
                "function_call": Fields(
                    fields=_FUNCTION_CALL.fields, needed=_FUNCTION_CALL.needed, nullable=True
                ),
            },
            rule=_says_something,
        ),
        "tool": Fields(
            fields={"content": _content(_TEXTS), "tool_call_id": Text(least=1)},
            needed=("content", "tool_call_id"),
        ),
        "function": Fields(
            fields={"content": Text(nullable=True), "name": Text(least=1)},
            needed=("content", "name"),
        ),
    },
)

_FUNCTION = Fields(
    fields={
        "name": Text(least=1, most=64),
        "description": Text(nullable=True),
        "parameters": MapOf(value=Anything(), nullable=True),
        "strict": Flag(nullable=True),
    },
    needed=("name",),
)

TOOL = Variants(
    by="type",
    known={
        "function": Fields(fields={"function": _FUNCTION}, needed=("function",)),
        "custom": Fields(
            fields={
                "custom": Fields(
                    fields={
                        "name": Text(least=1),
                        "description": Text(nullable=True),
                        "format": JSON_OBJECT,
                    },
                    needed=("name",),
                )
            },
            needed=("custom",),
        ),
    },
)

TOOL_CHOICE = Either(
    kinds=(
        Text(),
        Variants(
            by="type",
            known={
                "function": Fields(
                    fields={"function": Fields(fields={"name": Text(least=1)}, needed=("name",))},
                    needed=("function",),
                )
            },
        ),
    ),
    nullable=True,
)

JSON_SCHEMA = Fields(
    fields={
        "name": Text(least=1, most=64),
        "description": Text(nullable=True),
        "schema": MapOf(value=Anything(), nullable=True),
        "strict": Flag(nullable=True),
    },
    needed=("name",),
)

RESPONSE_FORMAT = Variants(
    by="type",
    nullable=True,
    known={
        "text": Fields(fields={}),
        "json_object": Fields(fields={}),
        "json_schema": Fields(fields={"json_schema": JSON_SCHEMA}, needed=("json_schema",)),
    },
)

STOP = Either(kinds=(Text(), ListOf(item=Text(), most=4)), nullable=True)

STREAM_OPTIONS = Fields(
    fields={"include_usage": Flag(nullable=True), "include_obfuscation": Flag(nullable=True)},
    nullable=True,
)


def stream_options_need_a_stream(get: Get) -> Problem | None:
    """`stream_options` may only be set when `stream` is true."""
    if get("stream_options") is not None and get("stream") is not True:
        return Problem(
            "stream_options",
            "invalid_value",
            "The 'stream_options' parameter is only allowed when 'stream' is true.",
        )
    return None


def _together(get: Get) -> Problem | None:
    if get("top_logprobs") is not None and get("logprobs") is not True:
        return Problem(
            "top_logprobs",
            "invalid_value",
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is true.",
        )
    return stream_options_need_a_stream(get)


SAMPLING: dict[str, Kind] = {
    "frequency_penalty": Number(least=-2, most=2, nullable=True),
    "logit_bias": MapOf(value=Number(least=-100, most=100), nullable=True),
    "n": Whole(least=1, most=128, nullable=True),
    "presence_penalty": Number(least=-2, most=2, nullable=True),
    "seed": Whole(nullable=True),
    "stop": STOP,
    "stream": Flag(nullable=True),
    "stream_options": STREAM_OPTIONS,
    "temperature": Number(least=0, most=2, nullable=True),
    "top_p": Number(least=0, most=1, nullable=True),
    "user": Text(nullable=True),
}

CHAT = Table(
    endpoint="POST /chat/completions",
    source="OpenAI API reference, Chat, Create chat completion",
    body=Fields(
        fields={
            "model": Text(least=1),
            "messages": ListOf(item=MESSAGE, least=1),
            **SAMPLING,
            "audio": Fields(
                fields={
                    "format": Text(least=1),
                    "voice": Either(
                        kinds=(Text(least=1), Fields(fields={"id": Text(least=1)}, needed=("id",)))
                    ),
                },
                needed=("format", "voice"),
                nullable=True,
            ),
            "function_call": Either(
                kinds=(Text(), Fields(fields={"name": Text(least=1)}, needed=("name",))),
                nullable=True,
            ),
            "functions": ListOf(item=_FUNCTION, least=1, most=128, nullable=True),
            "logprobs": Flag(nullable=True),
            "max_completion_tokens": Whole(least=1, nullable=True),
            "max_tokens": Whole(least=1, nullable=True),
            "metadata": METADATA,
            "modalities": ListOf(item=Text(), nullable=True),
            "parallel_tool_calls": Flag(nullable=True),
            "prediction": Variants(
                by="type",
                known={
                    "content": Fields(fields={"content": _content(_TEXTS)}, needed=("content",))
                },
                nullable=True,
            ),
            "prompt_cache_key": Text(nullable=True),
            "reasoning_effort": Text(nullable=True),
            "response_format": RESPONSE_FORMAT,
            "safety_identifier": Text(nullable=True),
            "service_tier": Text(nullable=True),
            "store": Flag(nullable=True),
            "tool_choice": TOOL_CHOICE,
            "tools": ListOf(item=TOOL, least=1, most=128, nullable=True),
            "top_logprobs": Whole(least=0, most=20, nullable=True),
            "verbosity": Text(nullable=True),
            "web_search_options": MapOf(value=Anything(), nullable=True),
        },
        needed=("model", "messages"),
        rule=_together,
    ),
)
