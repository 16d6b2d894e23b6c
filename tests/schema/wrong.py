"""Wrong requests: a request that passes, one change, and what the error must name."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.schema.changes import GONE, changed
from tests.schema.example import LINK, Body
from tests.schema.examples_chat import CALL, SOUND, WEATHER, picture, says, text
from tests.schema.examples_messages import DOCUMENT
from tests.schema.examples_messages import IMAGE as BLOCK
from tests.schema.examples_messages import TOOL as USED_TOOL
from tests.schema.examples_responses import FUNCTION, IMAGE, said
from tests.schema.examples_responses import TEXT as INPUT_TEXT

TYPE = "invalid_type"
VALUE = "invalid_value"
MISSING = "missing_required_parameter"
EMPTY_ARRAY = "empty_array"
EMPTY_TEXT = "empty_string"
LONG_ARRAY = "array_above_max_length"
LONG_TEXT = "string_above_max_length"
LONG_OBJECT = "object_above_max_length"
LOW = "decimal_below_min_value"
HIGH = "decimal_above_max_value"
FEW = "integer_below_min_value"
MANY = "integer_above_max_value"


class Wrong(NamedTuple):
    """A wrong request, and the error that it must get."""

    endpoint: str
    name: str
    body: Any
    param: str
    code: str

    def __str__(self) -> str:
        return f"{self.endpoint.split(' /')[1]}: {self.name}"


class Base(NamedTuple):
    """A request that passes, to be changed."""

    endpoint: str
    body: Body

    def wrong(self, code: str, *changes: tuple[Any, ...]) -> list[Wrong]:
        """One for each change: the path, the value, and the param where it is not the path."""
        return [
            Wrong(
                self.endpoint,
                f"{path} is {str(value)[:40]!r}"[:120],
                changed(self.body, path, value),
                param[0] if param else path,
                code,
            )
            for path, value, *param in changes
        ]


# -- chat ----------------------------------------------------------------------------------------

_CHAT = Base(
    "POST /chat/completions",
    {
        "model": "gpt-6-astra",
        "messages": [
            {"role": "system", "content": [text("Be brief.")]},
            says(
                text(),
                picture(LINK, detail="low"),
                SOUND,
                {"type": "file", "file": {"file_id": "file-1", "filename": "a.pdf"}},
                {"type": "video_url", "video_url": {"url": "https://films.example/a.mp4"}},
            ),
            {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "15 degrees"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        ],
        "tools": [WEATHER, {"type": "custom", "custom": {"name": "code"}}],
        "stream": True,
        "logprobs": True,
    },
)

_PART = "messages[1].content"
_CALL = "messages[2].tool_calls[0]"

_WRONG_CHAT = [
    *_CHAT.wrong(
        MISSING,
        ("model", GONE),
        ("messages", GONE),
        ("messages[0].role", GONE),
        ("messages[1].role", GONE),
        ("messages[0].content", GONE),
        ("messages[1].content", GONE),
        (f"{_PART}[0].type", GONE),
        (f"{_PART}[0].text", GONE),
        (f"{_PART}[1].image_url", GONE),
        (f"{_PART}[1].image_url.url", GONE),
        (f"{_PART}[2].input_audio", GONE),
        (f"{_PART}[2].input_audio.data", GONE),
        (f"{_PART}[2].input_audio.format", GONE),
        (f"{_PART}[3].file", GONE),
        (f"{_PART}[3].file.file_id", GONE, f"{_PART}[3].file.file_data"),
        (f"{_PART}[3].file", {}, f"{_PART}[3].file.file_data"),
        (f"{_PART}[3].file", {"file_data": None, "file_id": None}, f"{_PART}[3].file.file_data"),
        (f"{_PART}[4].video_url", GONE),
        (f"{_PART}[4].video_url.url", GONE),
        (f"{_CALL}.id", GONE),
        (f"{_CALL}.function", GONE),
        (f"{_CALL}.function.name", GONE),
        (f"{_CALL}.function.arguments", GONE),
        (_CALL, {"type": "custom", "id": "c"}, f"{_CALL}.custom"),
        (_CALL, {"type": "custom", "id": "c", "custom": {"name": "a"}}, f"{_CALL}.custom.input"),
        ("messages[2]", {"role": "assistant"}, "messages[2].content"),
        ("messages[2]", {"role": "assistant", "content": None}, "messages[2].content"),
        ("messages[3].tool_call_id", GONE),
        ("messages[3].content", GONE),
        ("messages[3]", {"role": "function", "content": None}, "messages[3].name"),
        ("messages[3]", {"role": "function", "name": "a"}, "messages[3].content"),
        ("messages[4].content[0].refusal", GONE),
        ("messages[4].audio", {}, "messages[4].audio.id"),
        ("messages[4].function_call", {"name": "a"}, "messages[4].function_call.arguments"),
        ("tools[0].type", GONE),
        ("tools[0].function", GONE),
        ("tools[0].function.name", GONE),
        ("tools[1].custom", GONE),
        ("tools[1].custom.name", GONE),
        ("tools[1].custom.format", {}, "tools[1].custom.format.type"),
        ("tools[1].custom.format", {"type": "grammar"}, "tools[1].custom.format.grammar"),
        (
            "tools[1].custom.format",
            {"type": "grammar", "grammar": {"syntax": "lark"}},
            "tools[1].custom.format.grammar.definition",
        ),
        ("tool_choice", {}, "tool_choice.type"),
        ("tool_choice", {"type": "function"}, "tool_choice.function"),
        ("tool_choice", {"type": "function", "function": {}}, "tool_choice.function.name"),
        ("tool_choice", {"type": "custom"}, "tool_choice.custom"),
        ("tool_choice", {"type": "allowed_tools"}, "tool_choice.allowed_tools"),
        (
            "tool_choice",
            {"type": "allowed_tools", "allowed_tools": {"tools": []}},
            "tool_choice.allowed_tools.mode",
        ),
        ("functions", [{}], "functions[0].name"),
        ("function_call", {}, "function_call.name"),
        ("response_format", {}, "response_format.type"),
        ("response_format", {"type": "json_schema"}, "response_format.json_schema"),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"schema": {}}},
            "response_format.json_schema.name",
        ),
        ("audio", {"voice": "alloy"}, "audio.format"),
        ("audio", {"format": "wav"}, "audio.voice"),
        ("audio", {"format": "wav", "voice": {}}, "audio.voice.id"),
        ("prediction", {"type": "content"}, "prediction.content"),
        ("prediction", {"content": "a"}, "prediction.type"),
        ("web_search_options", {"user_location": {}}, "web_search_options.user_location.type"),
    ),
    *_CHAT.wrong(
        TYPE,
        ("model", 4),
        ("model", None),
        ("model", ["gpt-6-astra"]),
        ("messages", "Hello"),
        ("messages", None),
        ("messages", {"role": "user", "content": "Hello"}),
        ("messages[0]", "Hello"),
        ("messages[0]", None),
        ("messages[0]", ["Hello"]),
        ("messages[0].role", 1),
        ("messages[0].role", None),
        ("messages[0].content", 1),
        ("messages[1].content", None),
        ("messages[1].content", {"type": "text", "text": "Hello"}),
        ("messages[1].name", 1),
        (f"{_PART}[0]", "Hello"),
        (f"{_PART}[0].type", None),
        (f"{_PART}[0].type", ["text"]),
        (f"{_PART}[0].text", None),
        (f"{_PART}[0].text", ["Hello"]),
        (f"{_PART}[1].image_url", 1),
        (f"{_PART}[1].image_url", None),
        (f"{_PART}[1].image_url.url", None),
        (f"{_PART}[1].image_url.url", 1),
        (f"{_PART}[1].image_url.url", {"url": LINK}),
        (f"{_PART}[1].image_url.detail", 1),
        (f"{_PART}[2].input_audio", None),
        (f"{_PART}[2].input_audio.data", 1),
        (f"{_PART}[2].input_audio.data", None),
        (f"{_PART}[2].input_audio.format", None),
        (f"{_PART}[3].file", "file-1"),
        (f"{_PART}[3].file.file_id", 1),
        (f"{_PART}[3].file.filename", 1),
        (f"{_PART}[3].file.file_data", 1),
        (f"{_PART}[4].video_url", "https://films.example/a.mp4"),
        ("messages[2].tool_calls", {}),
        (f"{_CALL}.type", 1),
        (f"{_CALL}.id", 1),
        (f"{_CALL}.function", "now"),
        (f"{_CALL}.function.arguments", 1),
        (f"{_CALL}.function.arguments", None),
        ("messages[3].tool_call_id", None),
        ("messages[4].refusal", True),
        ("messages[4].audio", "audio_abc"),
        ("messages[4].function_call", "now"),
        ("tools", {}),
        ("tools[0]", "now"),
        ("tools[0].type", None),
        ("tools[0].function", None),
        ("tools[0].function.name", 1),
        ("tools[0].function.description", 1),
        ("tools[0].function.parameters", "{}"),
        ("tools[0].function.strict", "yes"),
        ("tools[1].custom.format", "text"),
        ("tool_choice", 1),
        ("tool_choice", ["auto"]),
        ("tool_choice", {"type": None}, "tool_choice.type"),
        ("parallel_tool_calls", "true"),
        ("functions", {}),
        ("function_call", True),
        ("response_format", "json"),
        ("response_format", {"type": 1}, "response_format.type"),
        (
            "response_format",
            {"type": "json_schema", "json_schema": "a"},
            "response_format.json_schema",
        ),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "a", "schema": []}},
            "response_format.json_schema.schema",
        ),
        ("temperature", "0.5"),
        ("temperature", True),
        ("temperature", [1]),
        ("top_p", "1"),
        ("n", 1.5),
        ("n", "1"),
        ("n", True),
        ("seed", 1.5),
        ("seed", "1"),
        ("frequency_penalty", "0"),
        ("presence_penalty", False),
        ("logit_bias", []),
        ("logit_bias", {"1": "2"}, "logit_bias.1"),
        ("stop", 1),
        ("stop", [1], "stop[0]"),
        ("stop", ["a", None], "stop[1]"),
        ("stream", "true"),
        ("stream", 1),
        ("stream_options", True),
        ("stream_options", {"include_usage": "yes"}, "stream_options.include_usage"),
        ("max_tokens", "100"),
        ("max_tokens", 1.5),
        ("max_completion_tokens", 0.5),
        ("logprobs", 1),
        ("top_logprobs", 1.5),
        ("metadata", "a"),
        ("metadata", {"a": 1}, "metadata.a"),
        ("metadata", {"a": None}, "metadata.a"),
        ("modalities", "text"),
        ("modalities", [1], "modalities[0]"),
        ("audio", "alloy"),
        ("audio", {"format": "wav", "voice": 1}, "audio.voice"),
        ("prediction", "a"),
        ("prediction", {"type": "content", "content": None}, "prediction.content"),
        ("reasoning_effort", 1),
        ("service_tier", 1),
        ("store", "yes"),
        ("user", 1),
        ("verbosity", 1),
        ("web_search_options", True),
        (
            "web_search_options",
            {"search_context_size": 1},
            "web_search_options.search_context_size",
        ),
    ),
    *_CHAT.wrong(
        VALUE,
        ("messages[0].role", "boss"),
        ("messages[0].role", ""),
        ("messages[1].role", "User"),
        (f"{_PART}[1].image_url.detail", "medium"),
        (f"{_PART}[1].image_url.detail", ""),
        (f"{_PART}[2].input_audio.format", "avi"),
        (f"{_PART}[2].input_audio.format", "WAV"),
        ("messages[0].content[0]", picture(), "messages[0].content[0].type"),
        ("messages[0].content[0]", SOUND, "messages[0].content[0].type"),
        ("messages[4].content[0]", picture(), "messages[4].content[0].type"),
        (
            "messages[4].content[0]",
            {"type": "file", "file": {"file_id": "f"}},
            "messages[4].content[0].type",
        ),
        (
            "prediction",
            {"type": "content", "content": [picture()]},
            "prediction.content[0].type",
        ),
        (
            "tools[1].custom.format",
            {"type": "grammar", "grammar": {"syntax": "bnf", "definition": "a"}},
            "tools[1].custom.format.grammar.syntax",
        ),
        (
            "tool_choice",
            {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}},
            "tool_choice.allowed_tools.mode",
        ),
    ),
    *_CHAT.wrong(
        EMPTY_TEXT,
        ("model", ""),
        (f"{_PART}[3].file.file_id", ""),
        (f"{_PART}[4].video_url.url", ""),
        (f"{_CALL}.function.name", ""),
        ("messages[4].audio", {"id": ""}, "messages[4].audio.id"),
        ("tools[0].function.name", ""),
        ("tools[1].custom.name", ""),
        (
            "tool_choice",
            {"type": "function", "function": {"name": ""}},
            "tool_choice.function.name",
        ),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": ""}},
            "response_format.json_schema.name",
        ),
        ("audio", {"format": "wav", "voice": ""}, "audio.voice"),
    ),
    *_CHAT.wrong(
        EMPTY_ARRAY,
        ("messages", []),
        ("messages[0].content", []),
        ("messages[1].content", []),
        ("functions", []),
    ),
    *_CHAT.wrong(
        LONG_TEXT,
        ("tools[0].function.name", "a" * 65),
        ("functions", [{"name": "a" * 65}], "functions[0].name"),
        ("metadata", {"a": "b" * 513}, "metadata.a"),
        ("metadata", {"a" * 65: "b"}, "metadata"),
        ("safety_identifier", "a" * 129),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "a" * 65}},
            "response_format.json_schema.name",
        ),
    ),
    *_CHAT.wrong(
        LONG_ARRAY,
        ("stop", ["a"] * 5),
        ("tools", [WEATHER] * 129),
        ("functions", [{"name": "a"}] * 129),
    ),
    *_CHAT.wrong(LONG_OBJECT, ("metadata", {str(number): "" for number in range(17)})),
    *_CHAT.wrong(
        LOW,
        ("temperature", -0.1),
        ("top_p", -1),
        ("frequency_penalty", -2.1),
        ("presence_penalty", -3),
        ("logit_bias", {"1": -101}, "logit_bias.1"),
    ),
    *_CHAT.wrong(
        HIGH,
        ("temperature", 2.1),
        ("temperature", 3),
        ("top_p", 1.01),
        ("frequency_penalty", 2.1),
        ("presence_penalty", 3),
        ("logit_bias", {"1": 0, "2": 100.5}, "logit_bias.2"),
    ),
    *_CHAT.wrong(
        FEW,
        ("n", 0),
        ("n", -1),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_completion_tokens", 0),
        ("top_logprobs", -1),
    ),
    *_CHAT.wrong(MANY, ("n", 129), ("n", 10**30), ("top_logprobs", 21)),
]

_QUIET = Base(
    "POST /chat/completions",
    {"model": "m", "messages": [{"role": "user", "content": "Hello"}]},
)

_WRONG_QUIET = [
    *_QUIET.wrong(
        VALUE,
        ("stream_options", {"include_usage": True}),
        ("stream_options", {}),
        ("top_logprobs", 2),
    ),
]

# -- completions -----------------------------------------------------------------------------------

_COMPLETION = Base("POST /completions", {"model": "m", "prompt": "Say", "n": 2})

_WRONG_COMPLETIONS = [
    *_COMPLETION.wrong(MISSING, ("model", GONE), ("prompt", GONE)),
    *_COMPLETION.wrong(
        TYPE,
        ("prompt", 1),
        ("prompt", {}),
        ("prompt", [None], "prompt[0]"),
        ("prompt", [{}], "prompt[0]"),
        ("prompt", ["a", 1], "prompt[1]"),
        ("prompt", [1, "a"], "prompt[1]"),
        ("prompt", [[1], 2], "prompt[1]"),
        ("prompt", [[1], ["a"]], "prompt[1][0]"),
        ("prompt", [1.5], "prompt[0]"),
        ("echo", "yes"),
        ("suffix", 1),
        ("logprobs", True),
        ("best_of", "2"),
        ("max_tokens", 1.5),
        ("stop", {}),
    ),
    *_COMPLETION.wrong(EMPTY_ARRAY, ("prompt", []), ("prompt", [[]], "prompt[0]")),
    *_COMPLETION.wrong(FEW, ("logprobs", -1), ("best_of", -1), ("max_tokens", -1), ("n", 0)),
    *_COMPLETION.wrong(FEW, ("prompt", [1, -1], "prompt[1]"), ("prompt", [[-1]], "prompt[0][0]")),
    *_COMPLETION.wrong(MANY, ("logprobs", 6), ("best_of", 21), ("n", 129)),
    *_COMPLETION.wrong(HIGH, ("temperature", 2.5), ("top_p", 2)),
    *_COMPLETION.wrong(VALUE, ("best_of", 1), ("stream_options", {})),
    *Base("POST /completions", {"model": "m", "prompt": "Say", "stream": True}).wrong(
        VALUE, ("best_of", 2)
    ),
]

# -- responses -------------------------------------------------------------------------------------

_RESPONSE = Base(
    "POST /responses",
    {
        "model": "gpt-6-astra",
        "input": [
            said(
                INPUT_TEXT,
                IMAGE,
                {"type": "input_file", "file_id": "file-1"},
                {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
            ),
            {"type": "function_call", "call_id": "c", "name": "now", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [INPUT_TEXT]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "First,"}]},
            {"type": "message", "role": "assistant", "content": "Noon."},
            {"type": "item_reference", "id": "msg_1"},
        ],
        "tools": [
            FUNCTION,
            {"type": "mcp", "server_label": "dice", "server_url": "https://dice.example"},
            {"type": "file_search", "vector_store_ids": ["vs_1"]},
        ],
        "text": {"format": {"type": "json_schema", "name": "a", "schema": {}}},
        "stream": True,
    },
)

_IN = "input[0].content"

_WRONG_RESPONSES = [
    *_RESPONSE.wrong(
        MISSING,
        ("model", GONE),
        ("model", None),
        ("input", GONE),
        ("input", None),
        ("input[0].role", GONE),
        ("input[0].content", GONE),
        ("input[0]", {}, "input[0].role"),
        (f"{_IN}[0].type", GONE),
        (f"{_IN}[0].text", GONE),
        (f"{_IN}[1].image_url", GONE),
        (f"{_IN}[1].image_url", None),
        (f"{_IN}[2].file_id", GONE, f"{_IN}[2].file_data"),
        (f"{_IN}[3].input_audio", GONE),
        (f"{_IN}[3].input_audio.data", GONE),
        (f"{_IN}[3].input_audio.format", GONE),
        ("input[1].call_id", GONE),
        ("input[1].name", GONE),
        ("input[1].arguments", GONE),
        ("input[2].call_id", GONE),
        ("input[2].output", GONE),
        ("input[2].output[0].text", GONE),
        ("input[3].summary", GONE),
        ("input[3].summary[0].text", GONE),
        ("input[4].role", GONE),
        ("input[5].id", GONE),
        ("input[5]", {"type": "custom_tool_call", "call_id": "c", "name": "a"}, "input[5].input"),
        (
            "input[5]",
            {"type": "mcp_approval_response", "approve": True},
            "input[5].approval_request_id",
        ),
        (
            "input[5]",
            {
                "type": "computer_call_output",
                "call_id": "c",
                "output": {"type": "computer_screenshot"},
            },
            "input[5].output.image_url",
        ),
        ("tools[0].name", GONE),
        ("tools[0].type", GONE),
        ("tools[1].server_label", GONE),
        ("tools[1].server_url", GONE),
        ("tools[2].vector_store_ids", GONE),
        ("tools[2]", {"type": "code_interpreter"}, "tools[2].container"),
        ("tools[2]", {"type": "computer_use_preview"}, "tools[2].display_width"),
        ("tool_choice", {"type": "function"}, "tool_choice.name"),
        ("tool_choice", {"type": "mcp"}, "tool_choice.server_label"),
        ("tool_choice", {"type": "allowed_tools", "mode": "auto"}, "tool_choice.tools"),
        ("text.format.type", GONE),
        ("text.format.name", GONE),
        ("text.format.schema", GONE),
        ("conversation", {}, "conversation.id"),
        ("prompt", {}, "prompt.id"),
        (
            "prompt",
            {"id": "p", "variables": {"it": {"type": "input_image"}}},
            "prompt.variables.it.image_url",
        ),
    ),
    *_RESPONSE.wrong(
        TYPE,
        ("model", 1),
        ("input", 1),
        ("input", {}),
        ("input[0]", "Hello"),
        ("input[0].type", 1),
        ("input[0].role", 1),
        ("input[0].content", 1),
        (f"{_IN}[0]", "Hello"),
        (f"{_IN}[0].text", 1),
        (f"{_IN}[1].image_url", {"url": LINK}),
        (f"{_IN}[1].file_id", 1),
        (f"{_IN}[2].file_data", 1),
        (f"{_IN}[2].file_url", []),
        (f"{_IN}[3].input_audio", "SUQz"),
        ("input[1].arguments", {}),
        ("input[2].output", {}),
        ("input[3].summary", "First,"),
        ("instructions", ["Be brief."]),
        ("max_output_tokens", 1.5),
        ("max_output_tokens", "100"),
        ("max_tool_calls", "1"),
        ("tools", {}),
        ("tools[0].parameters", "{}"),
        ("tools[0].strict", 1),
        ("tools[1].headers", {"a": 1}, "tools[1].headers.a"),
        ("tools[1].allowed_tools", "roll"),
        ("tools[2].vector_store_ids", "vs_1"),
        ("tool_choice", 1),
        ("text", "json"),
        ("text.format", "json"),
        ("text.format.schema", []),
        ("text.verbosity", 1),
        ("reasoning", "high"),
        ("reasoning", {"effort": 1}, "reasoning.effort"),
        ("include", "reasoning.encrypted_content"),
        ("include", [1], "include[0]"),
        ("background", "yes"),
        ("conversation", 1),
        ("previous_response_id", 1),
        ("metadata", {"a": 1}, "metadata.a"),
        ("store", 1),
        ("stream", "yes"),
        ("stream_options", {"include_obfuscation": 1}, "stream_options.include_obfuscation"),
        ("temperature", "1"),
        ("truncation", True),
        ("prompt", "p"),
        ("prompt", {"id": "p", "variables": {"it": 1}}, "prompt.variables.it"),
    ),
    *_RESPONSE.wrong(
        VALUE,
        ("input[0].role", "tool"),
        ("input[4].role", "boss"),
        (f"{_IN}[1].detail", "medium"),
        (f"{_IN}[2].detail", "original"),
        (f"{_IN}[3].input_audio.format", "ogg"),
        ("tool_choice", {"type": "allowed_tools", "mode": "none", "tools": []}, "tool_choice.mode"),
    ),
    *_RESPONSE.wrong(
        EMPTY_TEXT,
        ("model", ""),
        (f"{_IN}[1].file_id", ""),
        ("input[1].name", ""),
        ("input[5].id", ""),
        ("tools[0].name", ""),
        ("tools[1].server_label", ""),
        ("text.format.name", ""),
        ("conversation", {"id": ""}, "conversation.id"),
    ),
    *_RESPONSE.wrong(LONG_TEXT, ("text.format.name", "a" * 65), ("tools[0].name", "a" * 129)),
    *_RESPONSE.wrong(FEW, ("max_output_tokens", 0), ("max_tool_calls", 0), ("top_logprobs", -1)),
    *_RESPONSE.wrong(FEW, ("tools[2].max_num_results", 0)),
    *_RESPONSE.wrong(MANY, ("top_logprobs", 21), ("tools[2].max_num_results", 51)),
    *_RESPONSE.wrong(HIGH, ("temperature", 2.1), ("top_p", 1.1)),
    *_RESPONSE.wrong(LOW, ("temperature", -1), ("top_p", -0.1)),
    *Base("POST /responses", {"model": "m", "input": "a", "conversation": "c"}).wrong(
        "mutually_exclusive_parameters", ("previous_response_id", "r")
    ),
    *Base("POST /responses", {"model": "m", "input": "a"}).wrong(VALUE, ("stream_options", {})),
]

# -- messages --------------------------------------------------------------------------------------

_MESSAGE = Base(
    "POST /messages",
    {
        "model": "claude-sonnet-4-5",
        "max_tokens": 2048,
        "system": [text("Be brief.")],
        "messages": [
            says(text(), BLOCK, DOCUMENT),
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "First,", "signature": "EqQB"},
                    {"type": "tool_use", "id": "toolu_1", "name": "now", "input": {}},
                ],
            },
            says({"type": "tool_result", "tool_use_id": "toolu_1", "content": [BLOCK]}),
        ],
        "tools": [USED_TOOL],
    },
)

_SAID = "messages[0].content"
_DID = "messages[1].content"

_WRONG_MESSAGES = [
    *_MESSAGE.wrong(
        MISSING,
        ("model", GONE),
        ("max_tokens", GONE),
        ("messages", GONE),
        ("messages[0].role", GONE),
        ("messages[0].content", GONE),
        (f"{_SAID}[0].type", GONE),
        (f"{_SAID}[0].text", GONE),
        (f"{_SAID}[1].source", GONE),
        (f"{_SAID}[1].source.type", GONE),
        (f"{_SAID}[1].source.media_type", GONE),
        (f"{_SAID}[1].source.data", GONE),
        (f"{_SAID}[1].source", {"type": "url"}, f"{_SAID}[1].source.url"),
        (f"{_SAID}[1].source", {"type": "file"}, f"{_SAID}[1].source.file_id"),
        (f"{_SAID}[2].source.data", GONE),
        (f"{_SAID}[2].source", {"type": "url"}, f"{_SAID}[2].source.url"),
        (f"{_SAID}[2].source", {"type": "content"}, f"{_SAID}[2].source.content"),
        (f"{_DID}[0].thinking", GONE),
        (f"{_DID}[1].id", GONE),
        (f"{_DID}[1].name", GONE),
        (f"{_DID}[1].input", GONE),
        ("messages[2].content[0].tool_use_id", GONE),
        ("messages[2].content[0].content[0].source", GONE),
        ("tools[0].name", GONE),
        ("tools[0].input_schema", GONE),
        ("tools[0].input_schema.type", GONE),
        ("tool_choice", {}, "tool_choice.type"),
        ("tool_choice", {"type": "tool"}, "tool_choice.name"),
        ("thinking", {"type": "enabled"}, "thinking.budget_tokens"),
        ("system[0].text", GONE),
        (f"{_SAID}[0].cache_control", {}, f"{_SAID}[0].cache_control.type"),
    ),
    *_MESSAGE.wrong(
        TYPE,
        ("model", 1),
        ("max_tokens", "100"),
        ("max_tokens", None),
        ("max_tokens", 1.5),
        ("messages", "Hello"),
        ("messages[0]", "Hello"),
        ("messages[0].content", None),
        ("messages[0].content", {}),
        (f"{_SAID}[0]", "Hello"),
        (f"{_SAID}[0].text", None),
        (f"{_SAID}[1].source", LINK),
        (f"{_SAID}[1].source.data", 1),
        (f"{_SAID}[1].source", {"type": "url", "url": None}, f"{_SAID}[1].source.url"),
        (f"{_DID}[1].input", "{}"),
        ("messages[2].content[0].is_error", "no"),
        ("system", 1),
        ("system", None),
        ("system[0]", "Be brief."),
        ("stop_sequences", "a"),
        ("stop_sequences", [1], "stop_sequences[0]"),
        ("stream", "yes"),
        ("temperature", "1"),
        ("top_k", 1.5),
        ("tools", {}),
        ("tools[0].name", 1),
        ("tools[0].type", 1),
        ("tools[0].input_schema", "{}"),
        ("tool_choice", "auto"),
        ("thinking", True),
        ("thinking", {"type": "enabled", "budget_tokens": "1024"}, "thinking.budget_tokens"),
        ("metadata", "user-1"),
        ("metadata", {"user_id": 1}, "metadata.user_id"),
    ),
    *_MESSAGE.wrong(
        VALUE,
        ("messages[0].role", "developer"),
        ("messages[1].role", "tool"),
        (f"{_SAID}[1].source.media_type", "image/tiff"),
        (f"{_SAID}[1].source.media_type", "image/jpg"),
        (f"{_SAID}[2].source.media_type", "application/msword"),
        ("tools[0].input_schema.type", "array"),
    ),
    *_MESSAGE.wrong(EMPTY_ARRAY, ("messages", [])),
    *_MESSAGE.wrong(EMPTY_TEXT, ("model", ""), ("tools[0].name", ""), (f"{_DID}[1].id", "")),
    *_MESSAGE.wrong(LONG_TEXT, ("tools[0].name", "a" * 129)),
    *_MESSAGE.wrong(HIGH, ("temperature", 1.1), ("top_p", 2)),
    *_MESSAGE.wrong(LOW, ("temperature", -0.1), ("top_p", -1)),
    *_MESSAGE.wrong(FEW, ("max_tokens", -1), ("top_k", -1)),
    *_MESSAGE.wrong(
        FEW, ("thinking", {"type": "enabled", "budget_tokens": 1023}, "thinking.budget_tokens")
    ),
    *Base("POST /messages", {**_MESSAGE.body, "tools": None}).wrong(
        VALUE,
        ("thinking", {"type": "enabled", "budget_tokens": 2048}, "thinking.budget_tokens"),
        ("thinking", {"type": "enabled", "budget_tokens": 9999}, "thinking.budget_tokens"),
    ),
]

_COUNT = Base(
    "POST /messages/count_tokens",
    {"model": "claude-sonnet-4-5", "messages": [says(text(), BLOCK)], "tools": [USED_TOOL]},
)

_WRONG_COUNTS = [
    *_COUNT.wrong(MISSING, ("model", GONE), ("messages", GONE), ("messages[0].content", GONE)),
    *_COUNT.wrong(MISSING, ("tools[0].input_schema", GONE), (f"{_SAID}[1].source.data", GONE)),
    *_COUNT.wrong(TYPE, ("system", 1), ("messages", {}), ("tool_choice", "any")),
    *_COUNT.wrong(VALUE, ("messages[0].role", "model")),
]

# -- the others ------------------------------------------------------------------------------------

_EMBEDDING = Base("POST /embeddings", {"model": "text-embedding-3-small", "input": "The food"})

_WRONG_EMBEDDINGS = [
    *_EMBEDDING.wrong(MISSING, ("model", GONE), ("input", GONE)),
    *_EMBEDDING.wrong(
        TYPE,
        ("model", 1),
        ("input", None),
        ("input", 1),
        ("input", {}),
        ("input", [None], "input[0]"),
        ("input", ["a", 1], "input[1]"),
        ("input", ["a", ["b"]], "input[1]"),
        ("input", [1, "a"], "input[1]"),
        ("input", [1, 1.5], "input[1]"),
        ("input", [[1], "a"], "input[1]"),
        ("input", [["a"]], "input[0][0]"),
        ("dimensions", "256"),
        ("dimensions", 1.5),
        ("encoding_format", 1),
        ("user", 1),
        ("messages", "Hello"),
    ),
    *_EMBEDDING.wrong(EMPTY_TEXT, ("model", ""), ("input", "")),
    *_EMBEDDING.wrong(EMPTY_ARRAY, ("input", []), ("input", [[]], "input[0]")),
    *_EMBEDDING.wrong(LONG_ARRAY, ("input", ["a"] * 2049), ("input", [1] * 2049)),
    *_EMBEDDING.wrong(FEW, ("dimensions", 0), ("input", [-1], "input[0]")),
    *_EMBEDDING.wrong(VALUE, ("encoding_format", "hex"), ("encoding_format", "")),
    *_EMBEDDING.wrong(MISSING, ("input", [{}], "input[0].content")),
]

_MODERATION = Base(
    "POST /moderations", {"input": [text(), picture()], "model": "omni-moderation-latest"}
)

_WRONG_MODERATIONS = [
    *_MODERATION.wrong(
        MISSING,
        ("input", GONE),
        ("input[0].type", GONE),
        ("input[0].text", GONE),
        ("input[1].image_url", GONE),
        ("input[1].image_url.url", GONE),
    ),
    *_MODERATION.wrong(
        TYPE,
        ("input", None),
        ("input", 1),
        ("input", [1], "input[0]"),
        ("input", ["a", text()], "input[1]"),
        ("input[1]", "a"),
        ("input[1].image_url.url", 1),
        ("model", 1),
    ),
    *_MODERATION.wrong(EMPTY_ARRAY, ("input", [])),
    *_MODERATION.wrong(EMPTY_TEXT, ("model", "")),
]

_DRAWING = Base("POST /images/generations", {"model": "gpt-image-1", "prompt": "An otter"})

_WRONG_IMAGES = [
    *_DRAWING.wrong(MISSING, ("prompt", GONE)),
    *_DRAWING.wrong(
        TYPE,
        ("prompt", None),
        ("prompt", ["An otter"]),
        ("model", 1),
        ("n", 1.5),
        ("n", "1"),
        ("size", 1024),
        ("quality", 1),
        ("stream", "yes"),
        ("output_compression", "80"),
        ("user", 1),
    ),
    *_DRAWING.wrong(EMPTY_TEXT, ("prompt", ""), ("model", "")),
    *_DRAWING.wrong(LONG_TEXT, ("prompt", "a" * 32001)),
    *_DRAWING.wrong(FEW, ("n", 0), ("output_compression", -1), ("partial_images", -1)),
    *_DRAWING.wrong(MANY, ("n", 11), ("output_compression", 101), ("partial_images", 4)),
    *_DRAWING.wrong(VALUE, ("response_format", "png"), ("response_format", "b64")),
]

_SPEECH = Base("POST /audio/speech", {"model": "tts-1", "input": "The fox.", "voice": "alloy"})

_WRONG_SPEECH = [
    *_SPEECH.wrong(MISSING, ("model", GONE), ("input", GONE), ("voice", GONE)),
    *_SPEECH.wrong(MISSING, ("voice", {}, "voice.id")),
    *_SPEECH.wrong(
        TYPE,
        ("model", None),
        ("input", ["The fox."]),
        ("voice", 1),
        ("voice", ["alloy"]),
        ("speed", "1"),
        ("instructions", 1),
        ("response_format", 1),
    ),
    *_SPEECH.wrong(EMPTY_TEXT, ("input", ""), ("voice", ""), ("voice", {"id": ""}, "voice.id")),
    *_SPEECH.wrong(LONG_TEXT, ("input", "a" * 4097)),
    *_SPEECH.wrong(LOW, ("speed", 0.2)),
    *_SPEECH.wrong(HIGH, ("speed", 4.1)),
    *_SPEECH.wrong(VALUE, ("response_format", "m4a"), ("stream_format", "json")),
]

# -- several mistakes ------------------------------------------------------------------------------

_NO_OBJECTS: list[Any] = [[], "Hello", 1, None, True]

_SEVERAL = [
    Wrong(
        "POST /chat/completions",
        "the first of three by position",
        {
            "temperature": 9,
            "messages": [{"role": "boss", "content": 1}],
            "model": "",
        },
        "temperature",
        HIGH,
    ),
    Wrong(
        "POST /chat/completions",
        "the first message of two that are wrong",
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": "Hello"},
                {"role": "user", "content": [picture(), {"type": "text"}, {"type": "text"}]},
                {"role": "boss", "content": "Hello"},
            ],
            "n": 0,
        },
        "messages[1].content[1].text",
        MISSING,
    ),
    Wrong(
        "POST /chat/completions",
        "what is there before what is missing",
        {"stream_options": {}, "temperature": "hot"},
        "temperature",
        TYPE,
    ),
    Wrong(
        "POST /responses",
        "a member of the second item before a rule",
        {
            "model": "m",
            "conversation": "c",
            "previous_response_id": "r",
            "input": [said(INPUT_TEXT), said({"type": "input_text", "text": 1})],
        },
        "input[1].content[0].text",
        TYPE,
    ),
    *(
        Wrong(endpoint, f"{body!r} is no object", body, "", TYPE)
        for endpoint in ("POST /chat/completions", "POST /messages")
        for body in _NO_OBJECTS
    ),
]

WRONG: list[Wrong] = [
    *_WRONG_CHAT,
    *_WRONG_QUIET,
    *_WRONG_COMPLETIONS,
    *_WRONG_RESPONSES,
    *_WRONG_MESSAGES,
    *_WRONG_COUNTS,
    *_WRONG_EMBEDDINGS,
    *_WRONG_MODERATIONS,
    *_WRONG_IMAGES,
    *_WRONG_SPEECH,
    *_SEVERAL,
]

RIGHT: list[Base] = [
    _CHAT, _QUIET, _COMPLETION, _RESPONSE, _MESSAGE, _COUNT, _EMBEDDING, _MODERATION, _DRAWING,
    _SPEECH,
]  # fmt: skip
"""What the wrong ones are changes of."""
