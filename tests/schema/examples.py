"""Every kind of request that the providers' references show, in our own words and shapes."""

from __future__ import annotations

from typing import Any

from tests.schema.example import LINK, PNG, Example, Media
from tests.schema.examples_chat import CHAT, COMPLETIONS
from tests.schema.examples_messages import MESSAGES
from tests.schema.examples_responses import RESPONSES


def _embed(name: str, input: object, *, media: tuple[Media, ...] = (), **more: Any) -> Example:
    body = {"model": "text-embedding-3-small", "input": input, **more}
    return Example("POST /embeddings", name, body, media)


def _moderate(name: str, input: object, *, media: tuple[Media, ...] = (), **more: Any) -> Example:
    return Example("POST /moderations", name, {"input": input, **more}, media)


def _draw(name: str, **more: Any) -> Example:
    body = {"model": "gpt-image-1", "prompt": "A baby sea otter", **more}
    return Example("POST /images/generations", name, body)


def _speak(name: str, **more: Any) -> Example:
    body = {"model": "gpt-4o-mini-tts", "input": "The quick brown fox.", "voice": "alloy", **more}
    return Example("POST /audio/speech", name, body)


_IMAGE = {"type": "image_url", "image_url": {"url": LINK}}

EXAMPLES: list[Example] = [
    *CHAT,
    *COMPLETIONS,
    *RESPONSES,
    *MESSAGES,
    _embed("one text", "The food was delicious.", encoding_format="float"),
    _embed("several texts", ["One", "Two"], dimensions=256, encoding_format="base64", user="u"),
    _embed("tokens", [1, 2, 3]),
    _embed("tokens of several", [[1, 2], [3]]),
    _embed(
        "texts and pictures",
        [{"content": [{"type": "text", "text": "A"}, _IMAGE]}],
        media=(("image", "input[0].content[1].image_url.url", None),),
    ),
    Example(
        "POST /embeddings",
        "messages, as vLLM takes them",
        {"model": "e5", "messages": [{"role": "user", "content": [_IMAGE]}]},
        (("image", "messages[0].content[0].image_url.url", None),),
    ),
    _moderate("one text", "I want to hug them."),
    _moderate("several texts", ["One", "Two"], model="omni-moderation-latest"),
    _moderate(
        "texts and pictures",
        [
            {"type": "text", "text": "One"},
            _IMAGE,
            {"type": "image_url", "image_url": {"url": PNG}},
        ],
        model="omni-moderation-latest",
        media=(
            ("image", "input[1].image_url.url", None),
            ("image", "input[2].image_url.url", None),
        ),
    ),
    _draw("the default one", n=1, size="1024x1024"),
    _draw(
        "each way",
        background="transparent",
        moderation="low",
        output_compression=100,
        output_format="webp",
        quality="high",
        size="auto",
        user="u",
    ),
    _draw("an older model", response_format="b64_json", style="vivid", quality="hd"),
    _draw("a stream", stream=True, partial_images=3),
    _speak("the default one"),
    _speak("each way", instructions="Cheerful.", response_format="opus", speed=0.25),
    _speak("a stream", stream_format="sse"),
    _speak("a voice of one's own", voice={"id": "voice_1234"}),
    _speak("a format of Groq's", response_format="ogg"),
]
