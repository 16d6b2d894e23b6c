"""Requests to chat/completions and completions, as the references show them."""

from __future__ import annotations

from typing import Any

from tests.schema.example import JPEG, LINK, PDF, PNG, Body, Example, Media

WEATHER: Body = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "The weather at a place",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "A city, like Bonn"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["location"],
        },
    },
}

CALL: Body = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_current_weather", "arguments": '{"location": "Bonn"}'},
}

HELLO: list[Body] = [
    {"role": "developer", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Hello!"},
]


def picture(url: str = LINK, **more: Any) -> Body:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def text(words: str = "What is in this picture?") -> Body:
    return {"type": "text", "text": words}


def says(*parts: Body, role: str = "user") -> Body:
    return {"role": role, "content": list(parts)}


def chat(
    name: str,
    *messages: Body,
    media: tuple[Media, ...] = (),
    strict: bool = True,
    **more: Any,
) -> Example:
    body = {"model": "gpt-6-astra", "messages": list(messages or HELLO), **more}
    return Example("POST /chat/completions", name, body, media, strict)


def at(message: int, part: int, further: str) -> str:
    return f"messages[{message}].content[{part}].{further}"


URL = at(0, 0, "image_url.url")
SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}

CHAT = [
    chat("the default one"),
    chat("a system message", {"role": "system", "content": "Be brief."}, *HELLO),
    chat("an empty text", {"role": "user", "content": ""}),
    chat("names", {"role": "user", "content": "Hello", "name": "Ann"}),
    chat("texts in parts", says(text("One."), text("Two."))),
    chat(
        "a picture by its link",
        says(text(), picture()),
        media=(("image", at(0, 1, "image_url.url"), None),),
        max_tokens=300,
    ),
    chat("a picture in the request", says(picture(PNG)), media=(("image", URL, None),)),
    chat(
        "a picture, looked at closely",
        says(picture(JPEG, detail="high")),
        media=(("image", URL, None),),
    ),
    chat(
        "a picture in its own size",
        says(picture(JPEG, detail="original")),
        media=(("image", URL, None),),
    ),
    chat(
        "several pictures",
        says(text(), picture(LINK, detail="low"), picture(PNG)),
        media=(
            ("image", at(0, 1, "image_url.url"), None),
            ("image", at(0, 2, "image_url.url"), None),
        ),
    ),
    chat(
        "pictures in several messages",
        says(picture()),
        {"role": "assistant", "content": "A lake."},
        says(text("And this?"), picture(PNG)),
        media=(("image", URL, None), ("image", at(2, 1, "image_url.url"), None)),
    ),
    chat(
        "a picture with a cache mark",
        says({**picture(), "prompt_cache_breakpoint": {"mode": "explicit"}}),
        media=(("image", URL, None),),
    ),
    chat(
        "a picture as a mere link, as Mistral takes it",
        says({"type": "image_url", "image_url": LINK}),
        media=(("image", at(0, 0, "image_url"), None),),
    ),
    chat(
        "a picture that a tool has made, as other upstreams take it",
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": [picture()]},
        media=(("image", at(1, 0, "image_url.url"), None),),
    ),
    chat(
        "a film, as other upstreams take it",
        says({"type": "video_url", "video_url": {"url": "https://films.example/a.mp4"}}),
    ),
    chat(
        "sound",
        says(text("What do you hear?"), SOUND),
        media=(("audio", at(0, 1, "input_audio.data"), "wav"),),
        modalities=["text"],
    ),
    chat(
        "sound whose format comes first",
        says({"type": "input_audio", "input_audio": {"format": "mp3", "data": "SUQzBA=="}}),
        media=(("audio", at(0, 0, "input_audio.data"), "mp3"),),
    ),
    chat(
        "sound as a mere text, as Mistral takes it",
        says({"type": "input_audio", "input_audio": "SUQzBA=="}),
        media=(("audio", at(0, 0, "input_audio"), None),),
    ),
    chat(
        "an answer that is spoken",
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
    ),
    chat("a voice of one's own", audio={"voice": {"id": "voice_1234"}, "format": "mp3"}),
    chat(
        "an answer to a spoken answer",
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "audio": {"id": "audio_abc"}},
        {"role": "user", "content": "And now?"},
    ),
    chat(
        "a file in the request",
        says({"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}}),
        media=(("file", at(0, 0, "file.file_data"), None),),
    ),
    chat("a file by its id", says({"type": "file", "file": {"file_id": "file-6F2ks"}}, text())),
    chat("a file by its id, as Mistral takes it", says({"type": "file", "file_id": "e85980c9"})),
    chat("a tool", tools=[WEATHER], tool_choice="auto"),
    chat("no tool", tools=[], tool_choice="none"),
    chat(
        "a tool that must be called",
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_current_weather"}},
        parallel_tool_calls=False,
    ),
    chat(
        "some of the tools",
        tools=[WEATHER],
        tool_choice={
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "get_current_weather"}}],
            },
        },
    ),
    chat(
        "a strict tool",
        tools=[{"type": "function", "function": {**WEATHER["function"], "strict": True}}],
    ),
    chat("a tool without parameters", tools=[{"type": "function", "function": {"name": "now"}}]),
    chat(
        "the result of a tool",
        {"role": "user", "content": "What is the weather in Bonn?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "15 degrees"},
        tools=[WEATHER],
    ),
    chat(
        "the result of a tool in parts",
        {"role": "assistant", "tool_calls": [CALL]},
        says(text("15 degrees"), role="tool") | {"tool_call_id": "call_1"},
    ),
    chat(
        "a call as Mistral writes it",
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "D681", "function": {"name": "now", "arguments": {}}}],
        },
        {"role": "tool", "name": "now", "tool_call_id": "D681", "content": "noon"},
    ),
    chat(
        "a tool of one's own",
        tools=[{"type": "custom", "custom": {"name": "code", "format": {"type": "text"}}}],
        tool_choice={"type": "custom", "custom": {"name": "code"}},
    ),
    chat(
        "a tool of one's own with a grammar",
        tools=[
            {
                "type": "custom",
                "custom": {
                    "name": "sum",
                    "format": {
                        "type": "grammar",
                        "grammar": {"syntax": "lark", "definition": "start: NUMBER"},
                    },
                },
            }
        ],
    ),
    chat(
        "a call of a tool of one's own",
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "call_2", "type": "custom", "custom": {"name": "code", "input": "1 + 1"}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_2", "content": "2"},
    ),
    chat("a kind of tool that is new", tools=[{"type": "browser_search"}], strict=False),
    chat("the older functions", functions=[WEATHER["function"]], function_call="auto"),
    chat(
        "an older function that is called",
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "now", "arguments": "{}"},
        },
        {"role": "function", "name": "now", "content": "noon"},
        functions=[{"name": "now"}],
        function_call={"name": "now"},
    ),
    chat("JSON", response_format={"type": "json_object"}),
    chat("plain text", response_format={"type": "text"}),
    chat(
        "structured output",
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "step",
                "description": "One step",
                "schema": {"type": "object", "properties": {"step": {"type": "string"}}},
                "strict": True,
            },
        },
    ),
    chat("a format that is new", response_format={"type": "regex", "regex": "a+"}, strict=False),
    chat("probabilities", logprobs=True, top_logprobs=2),
    chat("probabilities of none, as some clients say", logprobs=False, top_logprobs=0),
    chat("a stream", stream=True),
    chat(
        "a stream with its usage",
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
    ),
    chat("a prediction", prediction={"type": "content", "content": "class User: pass"}),
    chat("a prediction in parts", prediction={"type": "content", "content": [text("class")]}),
    chat("thinking", reasoning_effort="minimal", verbosity="low", max_completion_tokens=2048),
    chat(
        "thoughts of before, as other upstreams want them back",
        {"role": "assistant", "content": None, "reasoning_content": "First,"},
        {"role": "user", "content": "Go on."},
    ),
    chat(
        "a search of the web",
        web_search_options={
            "search_context_size": "low",
            "user_location": {
                "type": "approximate",
                "approximate": {"country": "DE", "city": "Bonn", "timezone": "Europe/Berlin"},
            },
        },
    ),
    chat("a search of the web, plainly", web_search_options={}),
    chat(
        "each way of sampling",
        frequency_penalty=-2,
        presence_penalty=2.0,
        logit_bias={"50256": -100, "15": 5},
        n=2,
        seed=-42,
        stop=["\n", "END"],
        temperature=0,
        top_p=1,
    ),
    chat("one stop", stop="\n", user="user-1", safety_identifier="0a1b"),
    chat(
        "kept, with notes",
        store=True,
        metadata={"team": "sales", "case": ""},
        service_tier="flex",
        prompt_cache_key="cases",
        prompt_cache_retention="24h",
    ),
    chat(
        "nulls",
        temperature=None,
        stop=None,
        tools=None,
        response_format=None,
        stream=None,
        stream_options=None,
        metadata=None,
        audio=None,
    ),
    chat(
        "a refusal of before",
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}]},
        {"role": "assistant", "content": None, "refusal": "I will not."},
    ),
    chat("members that are new", top_k=40, chat_template_kwargs={"a": 1}, strict=False),
    chat("a part that is new", says({"type": "hologram", "hologram": 1}), strict=False),
    chat(
        "a picture beside a part that is new",
        says({"type": "hologram"}, picture()),
        media=(("image", at(0, 1, "image_url.url"), None),),
        strict=False,
    ),
]


def completion(name: str, prompt: object = "Say it", **more: Any) -> Example:
    body = {"model": "gpt-3.5-turbo-instruct", "prompt": prompt, **more}
    return Example("POST /completions", name, body)


COMPLETIONS = [
    completion("the default one", max_tokens=7, temperature=0),
    completion("a stream", stream=True, stream_options={"include_usage": True}),
    completion("several prompts", ["One", "Two"]),
    completion("tokens", [1, 2, 3]),
    completion("tokens of several", [[1, 2], [3]]),
    completion("no prompt", None),
    completion("the best of some", best_of=3, n=2, echo=True, logprobs=5, suffix="."),
    completion("stops", stop=["a", "b"], seed=1, user="u"),
]
