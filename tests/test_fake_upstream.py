"""What the fake upstream answers, read by the official SDKs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import wave
import zlib
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_proxy_mw import testing
from ai_proxy_mw._http import Headers
from ai_proxy_mw.testing import FakeServer, FakeUpstream, _routes
from ai_proxy_mw.testing._call import Call
from ai_proxy_mw.testing._media import PNG

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["celsius", "kelvin"]},
        "kind": {"const": "now"},
        "days": {"type": ["integer", "null"]},
        "exact": {"type": "boolean"},
        "odd": True,
    },
}
ARGUMENTS = {
    "city": "example",
    "unit": "celsius",
    "kind": "now",
    "days": 1,
    "exact": True,
    "odd": {},
}


@pytest.fixture
def server(fake: FakeUpstream) -> Iterator[FakeServer]:
    with fake.serve() as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="sk-x", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def claude(server: FakeServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="sk-x", max_retries=0) as sdk:
        yield sdk


# The OpenAI SDK against the real server.


def test_chat(client: openai.OpenAI, fake: FakeUpstream) -> None:
    answer = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Hello there"}], n=2
    )
    assert [choice.message.content for choice in answer.choices] == ["You said: Hello there"] * 2
    assert answer.choices[1].index == 1
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 2
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == 10
    seen = fake.requests[-1]
    assert seen.json()["n"] == 2
    assert seen.header("authorization") == "Bearer sk-x"
    assert (seen.method, seen.path, seen.status) == ("POST", "/v1/chat/completions", 200)
    assert seen.outcome == "complete"
    assert seen.sha256 == hashlib.sha256(seen.body).hexdigest()


def test_chat_stream(client: openai.OpenAI, fake: FakeUpstream) -> None:
    fake.words = ["one", "two", "three"]
    fake.pace = 0.001
    chunks = list(
        client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "Hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert said == ["", "one", " two", " three", None]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[0].usage is None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert fake.requests[-1].chunks_sent == len(chunks) + 1


def test_chat_is_cut_at_the_limit(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "a b c"}], max_tokens=3
    )
    assert answer.choices[0].message.content == "You said: a"
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_chat_calls_a_tool_and_then_answers(client: openai.OpenAI, stream: bool) -> None:
    tools: Any = [
        {"type": "function", "function": {"name": "other", "parameters": {}}},
        {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    ]
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Weather?"}]}]
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    with client.chat.completions.stream(
        model="m", messages=messages, tools=tools, tool_choice=choice
    ) as events_:
        answer = events_.get_final_completion()
    if not stream:
        answer = client.chat.completions.create(  # type: ignore[assignment]
            model="m", messages=messages, tools=tools, tool_choice=choice
        )
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.name == "weather"
    assert json.loads(calls[0].function.arguments) == ARGUMENTS

    messages += [
        answer.choices[0].message.to_dict(),
        {"role": "tool", "tool_call_id": calls[0].id, "content": "Sunny"},
    ]
    after = client.chat.completions.create(model="m", messages=messages, tools=tools)
    assert after.choices[0].message.content == "You said: Sunny"
    first = client.chat.completions.create(model="m", messages=messages[:1], tools=tools)
    assert first.choices[0].message.tool_calls
    none = client.chat.completions.create(
        model="m", messages=messages[:1], tools=tools, tool_choice="none"
    )
    assert none.choices[0].message.content == "You said: Weather?"


def test_chat_answers_in_json(client: openai.OpenAI) -> None:
    wanted: Any
    for wanted, given_back in (
        ({"type": "json_object"}, {"answer": "example"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": WEATHER}}, ARGUMENTS),
    ):
        answer = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], response_format=wanted
        )
        assert json.loads(answer.choices[0].message.content or "") == given_back


def test_stored_chat(client: openai.OpenAI) -> None:
    stored = client.chat.completions
    assert [item.id for item in stored.list().data] == ["chatcmpl-1", "chatcmpl-2"]
    assert stored.retrieve("chatcmpl-7").id == "chatcmpl-7"
    assert stored.update("chatcmpl-7", metadata={"a": "b"}).metadata == {"a": "b"}
    assert stored.messages.list("chatcmpl-7").data[0].content == "Hello"
    assert stored.delete("chatcmpl-7").deleted


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="m", prompt="Hello", n=2)
    assert [choice.text for choice in answer.choices] == ["You said: Hello"] * 2
    usage: Any
    for usage in ({}, {"include_usage": True}):
        stream = client.completions.create(
            model="m", prompt="Hello", stream=True, stream_options=usage
        )
        chunks = list(stream)
        assert "".join(c.choices[0].text for c in chunks if c.choices) == "You said: Hello"
        assert (chunks[-1].usage is not None) is bool(usage)


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="m", input="Hello there")
    assert answer.output_text == "You said: Hello there"
    assert answer.status == "completed"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 6
    cut = client.responses.create(model="m", input="Hello there", max_output_tokens=2)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    queued = client.responses.create(model="m", input="x", background=True)
    assert queued.status == "queued"
    assert client.responses.retrieve("resp_1").id == "resp_1"
    assert client.responses.cancel("resp_1").status == "cancelled"
    assert client.responses.input_items.list("resp_1").data[0].id == "resp_1_0"
    client.responses.delete("resp_1")


def test_responses_stream(client: openai.OpenAI) -> None:
    told = list(client.responses.create(model="m", input="Hello", stream=True))
    assert [event.sequence_number for event in told] == list(range(len(told)))
    assert [event.type for event in told][:2] == ["response.created", "response.in_progress"]
    said = [event.delta for event in told if event.type == "response.output_text.delta"]
    assert said == ["You", " said:", " Hello"]
    assert told[-1].type == "response.completed"
    assert told[-1].response.output_text == "You said: Hello"


def test_responses_call_a_tool(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}]
    choice: Any
    for choice in ("auto", {"type": "function", "name": "weather"}):
        with client.responses.stream(
            model="m", input="Weather?", tools=tools, tool_choice=choice
        ) as stream:
            final = stream.get_final_response()
        called = final.output[0]
        assert called.type == "function_call"
        assert json.loads(called.arguments) == ARGUMENTS
    answered: Any = [
        {"role": "user", "content": "Weather?"},
        {"type": "function_call_output", "call_id": "1", "output": "Sunny"},
    ]
    after = client.responses.create(model="m", input=answered, tools=tools)
    assert after.output_text == "You said: Weather?"


def test_embeddings(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="m", input=["a", "b b"], dimensions=5)
    plain = client.embeddings.create(
        model="m", input=["a", "b b"], dimensions=5, encoding_format="float"
    )
    assert [item.embedding for item in packed.data] == [item.embedding for item in plain.data]
    assert [len(item.embedding) for item in plain.data] == [5, 5]
    assert plain.data[0].embedding != plain.data[1].embedding
    assert plain.usage.prompt_tokens == 3
    assert len(client.embeddings.create(model="m", input=[1, 2, 3]).data) == 1
    assert len(client.embeddings.create(model="m", input=[[1], [2]]).data) == 2
    assert len(client.embeddings.create(model="m", input="a").data) == 1


def test_moderations(client: openai.OpenAI) -> None:
    assert not client.moderations.create(input="peace").results[0].flagged
    two = client.moderations.create(input=["peace", "violence"]).results
    assert [result.categories.violence for result in two] == [False, True]
    parts: Any = [{"type": "text", "text": "violence"}]
    assert [result.flagged for result in client.moderations.create(input=parts).results] == [True]


def test_images(client: openai.OpenAI) -> None:
    made = client.images.generate(model="m", prompt="A cat", n=2)
    assert made.data is not None
    assert [base64.b64decode(image.b64_json or "") for image in made.data] == [PNG, PNG]
    linked = client.images.generate(model="m", prompt="A cat", response_format="url")
    assert linked.data is not None
    assert linked.data[0].url
    edited = client.images.edit(image=("a.png", PNG), prompt="A dog", n=3)
    assert edited.data is not None
    assert len(edited.data) == 3
    with pytest.raises(openai.BadRequestError):
        client.post("/images/variations", body={}, cast_to=object)


def test_the_png_is_one() -> None:
    assert PNG.startswith(b"\x89PNG\r\n\x1a\n")
    start = PNG.index(b"IDAT") + 4
    assert zlib.decompress(PNG[start:-16]) == b"\x00\x80"


def test_speech(client: openai.OpenAI, fake: FakeUpstream) -> None:
    answer = client.audio.speech.create(model="m", voice="alloy", input="Hello")
    assert answer.response.headers["content-type"] == "audio/mpeg"
    assert answer.content.startswith(b"\xff\xfb")
    assert fake.requests[-1].chunks_sent > 1
    sound = client.audio.speech.create(
        model="m", voice="alloy", input="Hello", response_format="wav"
    )
    with wave.open(io.BytesIO(sound.content)) as read:
        assert read.getnframes() == read.getframerate()
    samples = client.audio.speech.create(
        model="m", voice="alloy", input="Hello", response_format="pcm"
    )
    assert sound.content.endswith(samples.content)
    with pytest.raises(openai.BadRequestError, match="mp3"):
        client.audio.speech.create(model="m", voice="alloy", input="x", response_format="opus")


def test_transcription_of_a_large_file_is_not_held(
    client: openai.OpenAI, fake: FakeUpstream
) -> None:
    sound = bytes(20 << 20)
    answer = client.audio.transcriptions.create(model="m", file=("a.mp3", sound))
    seen = fake.requests[-1]
    assert answer.text == f"{seen.body_size} bytes received"
    assert seen.body_size > len(sound)
    assert len(seen.body) == fake.keep_body == 1 << 20


def test_transcription_formats(client: openai.OpenAI) -> None:
    audio = client.audio.transcriptions
    sound = ("a.mp3", b"sound")
    assert audio.create(model="m", file=sound, response_format="text").endswith("received\n")
    assert "-->" in audio.create(model="m", file=sound, response_format="srt")
    assert audio.create(model="m", file=sound, response_format="vtt").startswith("WEBVTT")
    verbose = audio.create(model="m", file=sound, response_format="verbose_json")
    assert verbose.language == "english"
    told = list(audio.create(model="m", file=sound, stream=True))
    assert told[-1].type == "transcript.text.done"
    said = "".join(e.delta for e in told if e.type == "transcript.text.delta")
    assert said == told[-1].text
    with pytest.deprecated_call():
        assert client.audio.translations.create(model="m", file=sound).text.endswith("received")
    with pytest.raises(openai.BadRequestError, match="multipart"):
        client.post("/audio/transcriptions", body={}, cast_to=object)


def test_models(client: openai.OpenAI, fake: FakeUpstream) -> None:
    fake.models = ["a", "org/b"]
    assert [model.id for model in client.models.list()] == ["a", "org/b"]
    assert client.models.retrieve("org/b").id == "org/b"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("c")
    assert caught.value.code == "model_not_found"


def test_files(client: openai.OpenAI, fake: FakeUpstream) -> None:
    made = client.files.create(file=("data.jsonl", b"x" * 1000), purpose="batch")
    assert (made.bytes, made.filename, made.purpose) == (1000, "data.jsonl", "batch")
    again = client.files.create(file=("data.jsonl", b"x" * 1000), purpose="batch")
    assert again.id == made.id
    assert [file.id for file in client.files.list()] == ["file-1", "file-2"]
    assert client.files.retrieve("file-9").filename == "file-9.bin"
    assert client.files.delete("file-9").deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve("missing")
    with pytest.raises(openai.BadRequestError, match="file"):
        client.post("/files", body={}, cast_to=object)


def test_download(client: openai.OpenAI, fake: FakeUpstream) -> None:
    fake.download_bytes = 200_001
    content = client.files.content("file-1").content
    assert len(content) == 200_001
    assert content == b"".join(fake.download())
    assert content[65_536:65_544] == (1).to_bytes(8, "big")


def test_uploads(client: openai.OpenAI) -> None:
    made = client.uploads.create(
        bytes=10, filename="a.bin", mime_type="text/plain", purpose="batch"
    )
    assert (made.status, made.bytes) == ("pending", 10)
    part = client.uploads.parts.create(made.id, data=b"0123456789")
    assert part.upload_id == made.id
    done = client.uploads.complete(made.id, part_ids=[part.id])
    assert done.status == "completed"
    assert done.file is not None
    assert client.uploads.cancel(made.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="data"):
        client.post(f"/uploads/{made.id}/parts", body={}, cast_to=object)


def test_batches(client: openai.OpenAI) -> None:
    made = client.batches.create(
        input_file_id="file-1", endpoint="/v1/embeddings", completion_window="24h"
    )
    assert (made.status, made.endpoint) == ("validating", "/v1/embeddings")
    assert client.batches.retrieve(made.id).status == "completed"
    assert client.batches.cancel(made.id).status == "cancelling"
    assert len(client.batches.list().data) == 1


def test_async_client(server: FakeServer) -> None:
    async def main() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="x") as sdk:
            stream = await sdk.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
            )
            return [chunk.choices[0].delta.content async for chunk in stream]

    assert asyncio.run(main()) == ["", "You", " said:", " Hi", None]


# The Anthropic SDK.


def test_messages(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(
        model="m", max_tokens=100, messages=[{"role": "user", "content": "Hello"}]
    )
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "You said: Hello"
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens == 3
    count = claude.messages.count_tokens(
        model="m", messages=[{"role": "user", "content": "Hello there"}]
    )
    assert count.input_tokens == 2


def test_messages_stream(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(
        model="m", max_tokens=2, messages=[{"role": "user", "content": "Hello"}]
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert final.content[0].type == "text"
    assert final.content[0].text == "You said:"
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 2


def test_messages_call_a_tool(claude: anthropic.Anthropic) -> None:
    tools: Any = [{"name": "weather", "input_schema": WEATHER}]
    messages: list[Any] = [{"role": "user", "content": "Weather?"}]
    choice: Any = {"type": "tool", "name": "weather"}
    with claude.messages.stream(
        model="m", max_tokens=10, messages=messages, tools=tools, tool_choice=choice
    ) as stream:
        streamed = stream.get_final_message()
    answer = claude.messages.create(model="m", max_tokens=10, messages=messages, tools=tools)
    for message in (answer, streamed):
        assert message.stop_reason == "tool_use"
        assert message.content[0].type == "tool_use"
        assert message.content[0].input == ARGUMENTS
    result = {"type": "tool_result", "tool_use_id": "1", "content": "Sunny"}
    messages += [
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    after = claude.messages.create(model="m", max_tokens=10, messages=messages, tools=tools)
    assert after.content[0].type == "text"
    assert after.content[0].text == "You said: Sunny"
    none = claude.messages.create(
        model="m", max_tokens=10, messages=messages[:1], tools=tools, tool_choice={"type": "none"}
    )
    assert none.content[0].type == "text"


def test_messages_errors_have_their_shape(claude: anthropic.Anthropic, fake: FakeUpstream) -> None:
    fake.fail(529, type="overloaded_error", message="Overloaded")
    with pytest.raises(anthropic.APIStatusError) as caught:
        claude.messages.create(
            model="m", max_tokens=1, messages=[{"role": "user", "content": "Hello"}]
        )
    assert caught.value.body == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"},
    }


# Any JSON at all is answered.

_SCALARS = st.none() | st.booleans() | st.integers(-9, 300) | st.text(max_size=5)
_ANY = st.recursive(
    _SCALARS | st.just(WEATHER),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "type",
                    "name",
                    "function",
                    "parameters",
                    "schema",
                    "text",
                    "json_schema",
                    "include_usage",
                    "properties",
                    "enum",
                    "input_schema",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
_FIELDS = """
background dimensions encoding_format endpoint filename input input_file_id max_tokens messages
metadata n part_ids prompt response_format stream stream_options tool_choice tools bytes
"""
_PATHS = [path for method, path in _routes._FIXED if method == "POST"] + [
    "/chat/completions/a",
    "/uploads/a/complete",
    "/uploads/a/cancel",
]


@settings(max_examples=100, deadline=None)
@given(
    path=st.sampled_from(_PATHS),
    data=st.fixed_dictionaries(
        {"model": st.just("m") | _ANY}, optional=dict.fromkeys(_FIELDS.split(), _ANY)
    ),
)
def test_any_json_is_answered(path: str, data: Any) -> None:
    body = msgspec.json.encode(data)
    answer = _routes.respond(
        Call(
            method="POST",
            path=path,
            query="",
            headers=Headers([]),
            body=body,
            size=len(body),
            sha256="",
            traits=FakeUpstream(),
        )
    )
    assert answer.status in (200, 400)
    assert (answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)) != b""


def test_exported_names() -> None:
    assert testing.__all__ == sorted(testing.__all__)
    assert all(hasattr(testing, name) for name in testing.__all__)


def test_a_body_that_is_not_utf8_is_refused(server: FakeServer) -> None:
    answer = httpx.post(f"{server.base_url}/chat/completions", content=b'{"a\xff":1}')
    assert answer.status_code == 400
