"""What a real client gets through each door is what it gets from the upstream itself."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from typing import Any
from urllib.parse import unquote

import anthropic
import httpx
import openai
import pytest

from tests.conftest import KEY, House
from tests.forms import HEADERS, form
from tests.schema.makers import wav

CHAT: dict[str, Any] = {
    "model": "fake-1",
    "messages": [{"role": "user", "content": "Grüße — 你好 👋"}],
}
TOOLS: dict[str, Any] = {
    **CHAT,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
    ],
}
FILE = ("clip.wav", b"RIFF....WAVE" * 1000, "audio/wav")

Call = tuple[str, str, dict[str, Any]]
CALLS: dict[str, Call] = {
    "chat": ("POST", "/chat/completions", {"json": CHAT}),
    "chat stream": ("POST", "/chat/completions", {"json": {**CHAT, "stream": True}}),
    "chat usage": (
        "POST",
        "/chat/completions",
        {"json": {**CHAT, "stream": True, "stream_options": {"include_usage": True}}},
    ),
    "tools": ("POST", "/chat/completions", {"json": TOOLS}),
    "tools stream": ("POST", "/chat/completions", {"json": {**TOOLS, "stream": True}}),
    "stored chats": ("GET", "/chat/completions?limit=2&after=a%20b", {}),
    "stored chat": ("GET", "/chat/completions/chatcmpl-1", {}),
    "stored messages": ("GET", "/chat/completions/chatcmpl-1/messages", {}),
    "delete chat": ("DELETE", "/chat/completions/chatcmpl-1", {}),
    "completions": ("POST", "/completions", {"json": {"model": "fake-1", "prompt": "Hi"}}),
    "responses": ("POST", "/responses", {"json": {"model": "fake-1", "input": "Hi"}}),
    "responses stream": (
        "POST",
        "/responses",
        {"json": {"model": "fake-1", "input": "Hi", "stream": True}},
    ),
    "response": ("GET", "/responses/resp_1", {}),
    "delete response": ("DELETE", "/responses/resp_1", {}),
    "cancel response": ("POST", "/responses/resp_1/cancel", {}),
    "embeddings": ("POST", "/embeddings", {"json": {"model": "fake-1", "input": "Hi"}}),
    "moderations": ("POST", "/moderations", {"json": {"input": "Hi"}}),
    "image": ("POST", "/images/generations", {"json": {"model": "fake-1", "prompt": "Hi"}}),
    "speech": (
        "POST",
        "/audio/speech",
        {"json": {"model": "fake-1", "input": "Hi", "voice": "alloy"}},
    ),
    "transcription": (
        "POST",
        "/audio/transcriptions",
        {"files": {"file": FILE}, "data": {"model": "fake-1"}},
    ),
    "models": ("GET", "/models", {}),
    "model": ("GET", "/models/fake-1", {}),
    "escaped model": ("GET", "/models/fake%2D1", {}),
    "messages": ("POST", "/messages", {"json": {**CHAT, "max_tokens": 100}}),
    "messages stream": (
        "POST",
        "/messages",
        {"json": {**CHAT, "max_tokens": 100, "stream": True}},
    ),
    "count tokens": ("POST", "/messages/count_tokens", {"json": CHAT}),
    "files": ("GET", "/files", {}),
    "upload file": ("POST", "/files", {"files": {"file": FILE}, "data": {"purpose": "batch"}}),
    "file": ("GET", "/files/file-1", {}),
    "file content": ("GET", "/files/file-1/content", {}),
    "delete file": ("DELETE", "/files/file-1", {}),
    "batches": ("GET", "/batches", {}),
    "unknown id": ("GET", "/models/no-such-model", {}),
}


def _ask(base: str, call: Call, **headers: str) -> tuple[httpx.Response, bytes]:
    method, path, arguments = call
    with (
        httpx.Client(timeout=30) as client,
        client.stream(method, f"{base}{path}", headers=headers, **arguments) as response,
    ):
        return response, b"".join(response.iter_raw())


@pytest.mark.parametrize("name", CALLS)
def test_every_answer_is_the_upstreams_byte_for_byte(house: House, name: str) -> None:
    call = CALLS[name]
    direct, expected = _ask(house.direct, call)
    relayed, body = _ask(house.v1, call)
    assert body == expected
    assert relayed.status_code == direct.status_code
    assert relayed.headers["content-type"] == direct.headers["content-type"]
    assert relayed.headers.get("content-length") == direct.headers.get("content-length")
    first, second = house.fake.requests
    assert (first.method, first.query) == (second.method, second.query)
    assert unquote(first.path) == second.path  # one spelling of each path goes upstream
    if "files" not in call[2]:  # httpx makes a new multipart boundary each time
        assert first.sha256 == second.sha256


@pytest.mark.parametrize("name", ["chat", "chat stream"])
def test_compressed_answers_pass_as_the_client_can_read_them(house: House, name: str) -> None:
    plain, expected = _ask(house.direct, CALLS[name])
    assert "content-encoding" not in plain.headers
    house.fake.compress = "gzip"
    packed, body = _ask(house.v1, CALLS[name], **{"accept-encoding": "gzip, br"})
    if name == "chat":
        assert packed.headers["content-encoding"] == "gzip"
        _direct, packed_directly = _ask(house.direct, CALLS[name], **{"accept-encoding": "gzip"})
        assert body == packed_directly
    else:
        assert "content-encoding" not in packed.headers  # an event stream is never compressed
        assert body == expected
    assert packed.headers["vary"] == "Accept-Encoding"
    house.fake.compress = "always"
    unpacked, body = _ask(house.v1, CALLS[name], **{"accept-encoding": "identity"})
    assert "content-encoding" not in unpacked.headers
    assert body == expected


def test_only_what_is_allowed_goes_upstream(house: House) -> None:
    _, body = _ask(
        house.v1,
        CALLS["chat"],
        **{
            "Authorization": "Bearer the-apps-own",
            "X-Api-Key": "the-apps-own",
            "Cookie": "session=1",
            "X-Forwarded-For": "10.0.0.1",
            "Forwarded": "for=10.0.0.1",
            "X-Real-IP": "10.0.0.1",
            "OpenAI-Organization": "org-other",
            "OpenAI-Beta": "assistants=v2",
            "anthropic-version": "2023-06-01",
            "anthropic-beta": "b",
            "Idempotency-Key": "k1",
            "X-Stainless-Lang": "python",
            "X_Stainless_Lang": "forged",
            "Connection": "close, X-Hop",
            "X-Hop": "1",
            "TE": "trailers",
            "Upgrade": "h2c",
            "User-Agent": "shop/1.0",
        },
    )
    assert b"chat.completion" in body
    (seen,) = house.fake.requests
    sent = dict(seen.headers)
    assert len(sent) == len(seen.headers)
    host = sent.pop(b"host")
    assert house.direct == f"http://{host.decode()}/v1"
    agent = sent.pop(b"user-agent")
    assert agent.startswith(b"ai_proxy_mw/")
    assert agent.endswith(b" shop/1.0")
    assert sent.pop(b"x-proxy-origin").startswith(b"ai_proxy_mw/")
    assert sent == {
        b"authorization": f"Bearer {KEY}".encode(),
        b"via": b"1.1 ai_proxy_mw",
        b"accept": b"*/*",
        b"content-type": b"application/json",
        b"content-length": str(seen.body_size).encode(),
        b"openai-beta": b"assistants=v2",
        b"anthropic-version": b"2023-06-01",
        b"anthropic-beta": b"b",
        b"idempotency-key": b"k1",
        b"x-stainless-lang": b"python",
        b"accept-encoding": b"gzip, deflate",
    }


def test_only_what_is_allowed_comes_back(house: House) -> None:
    direct, _ = _ask(house.direct, CALLS["chat"])
    assert "set-cookie" in direct.headers
    assert "access-control-allow-origin" in direct.headers
    relayed, _ = _ask(house.v1, CALLS["chat"])
    for name in ("set-cookie", "access-control-allow-origin"):
        assert name not in relayed.headers
    assert "fake" not in relayed.headers.get("server", "")
    for name in ("x-ratelimit-remaining-requests", "openai-processing-ms"):
        assert relayed.headers[name] == direct.headers[name]
    assert relayed.headers["x-upstream-request-id"] == direct.headers["x-request-id"]
    assert relayed.headers["x-request-id"].startswith("req_")
    assert relayed.headers["x-content-type-options"] == "nosniff"


def test_the_callers_request_id_is_kept_when_it_is_sane(house: House) -> None:
    kept, _ = _ask(house.v1, CALLS["models"], **{"X-Request-ID": "order-17/a"})
    assert kept.headers["x-request-id"] == "order-17/a"
    for bad in ("a b", "x" * 129, "{}"):
        made, _ = _ask(house.v1, CALLS["models"], **{"X-Request-ID": bad})
        assert made.headers["x-request-id"].startswith("req_")


def test_an_event_stream_is_not_buffered_on_its_way(house: House) -> None:
    """The first chunk is with the client before the upstream sends the second."""
    with house.fake.hold() as gate, httpx.Client(timeout=30) as client:
        method, path, arguments = CALLS["chat stream"]
        with client.stream(method, f"{house.v1}{path}", **arguments) as response:
            assert response.headers["x-accel-buffering"] == "no"
            pieces = response.iter_raw()
            gate.release()
            first = next(pieces)
            assert first.startswith(b"data: {")
            assert first.endswith(b"\n\n")
            assert house.fake.requests[0].chunks_sent == 1
            gate.open()
            assert b"".join(pieces).endswith(b"data: [DONE]\n\n")


def test_an_upstreams_own_error_passes_with_its_status_and_body(house: House) -> None:
    headers = {"retry-after": "7", "set-cookie": "a=b"}
    house.fake.fail(429, code="rate_limit_exceeded", headers=headers, times=2)
    _, expected = _ask(house.direct, CALLS["chat"])
    relayed, body = _ask(house.v1, CALLS["chat"])
    assert relayed.status_code == 429
    assert body == expected
    assert relayed.headers["retry-after"] == "7"
    assert "set-cookie" not in relayed.headers


def test_the_openai_client_gets_the_same_through_the_proxy(house: House) -> None:
    def calls(client: openai.OpenAI) -> list[Any]:
        chat = client.chat.completions.create(**CHAT)
        tools = client.chat.completions.create(**TOOLS)
        stream = list(client.chat.completions.create(**CHAT, stream=True))
        events = list(client.responses.create(model="fake-1", input="Hi", stream=True))
        response = client.responses.create(model="fake-1", input="Hi")
        embedding = client.embeddings.create(model="fake-1", input=["a", "b"])
        image = client.images.generate(model="fake-1", prompt="a cat")
        speech = client.audio.speech.create(model="fake-1", voice="alloy", input="Hi")
        models = list(client.models.list())
        assert stream
        assert events
        return [chat, tools, stream, events, response, embedding, image, speech.read(), models]

    with (
        openai.OpenAI(base_url=house.direct, api_key="x", max_retries=0) as direct,
        openai.OpenAI(base_url=house.v1, api_key="x", max_retries=0) as relayed,
    ):
        assert calls(relayed) == calls(direct)


def test_the_async_openai_client_gets_the_same_through_the_proxy(house: House) -> None:
    async def calls(base: str) -> list[Any]:
        async with openai.AsyncOpenAI(base_url=base, api_key="x", max_retries=0) as client:
            stream = await client.chat.completions.create(**CHAT, stream=True)
            chunks = [chunk async for chunk in stream]
            events = await client.responses.create(model="fake-1", input="Hi", stream=True)
            assert chunks
            return [
                await client.chat.completions.create(**CHAT),
                chunks,
                [event async for event in events],
                await client.chat.completions.create(**TOOLS),
                await client.embeddings.create(model="fake-1", input="a"),
                (await client.audio.speech.create(model="f", voice="alloy", input="a")).content,
                [model async for model in client.models.list()],
            ]

    assert asyncio.run(calls(house.v1)) == asyncio.run(calls(house.direct))


def test_the_openai_client_uploads_through_the_proxy(house: House) -> None:
    sound = wav() + bytes(range(256)) * (25 * 4096)
    audio = io.BytesIO(sound[: 25 << 20])
    with openai.OpenAI(base_url=house.v1, api_key="x", max_retries=0) as client:
        text = client.audio.transcriptions.create(model="fake-1", file=("a.wav", audio)).text
        assert text
        upload = client.files.create(file=("b.jsonl", b'{"a": 1}\n' * 1000), purpose="batch")
        assert upload.id
        assert client.files.content(upload.id).read()
    seen = house.fake.requests
    assert seen[0].body_size > 25 << 20
    assert (seen[0].header("content-type") or "").startswith("multipart/form-data; boundary=")
    assert seen[1].path == "/v1/files"


def test_the_anthropic_client_gets_the_same_through_the_proxy(house: House) -> None:
    def calls(base: str) -> list[Any]:
        with anthropic.Anthropic(
            base_url=base.removesuffix("/v1"), api_key="x", max_retries=0
        ) as client:
            message = client.messages.create(**CHAT, max_tokens=100)
            stream = list(client.messages.create(**CHAT, max_tokens=100, stream=True))
            assert stream
            return [message, stream]

    assert calls(house.v1) == calls(house.direct)


def _pieces(body: bytes, size: int = 1 << 16) -> Any:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_upload_arrives_whole_however_it_is_framed(house: House, framing: str) -> None:
    body = form(wav() + b"x" * (3 << 20), model="fake-1")
    headers = {**HEADERS, "content-length": str(len(body))} if framing == "length" else HEADERS
    response = httpx.post(
        f"{house.v1}/audio/transcriptions", content=_pieces(body), headers=headers, timeout=30
    )
    assert response.status_code == 200
    (seen,) = house.fake.requests
    assert seen.body_size == len(body)
    assert seen.sha256 == hashlib.sha256(body).hexdigest()


def test_the_rest_of_the_app_is_untouched(house: House) -> None:
    if house.kind.startswith("gunicorn"):
        assert httpx.get(f"{house.url}/").json() == {"app": "flask"}
    missing = httpx.get(f"{house.url}/elsewhere")
    assert missing.status_code == 404
    assert "x-request-id" not in missing.headers
    assert httpx.get(f"{house.url}/v1x").status_code == 404


def test_head_and_options(house: House) -> None:
    head = httpx.head(f"{house.v1}/models")
    assert head.status_code == 200
    assert head.content == b""
    assert house.fake.requests[0].method == "HEAD"
    options = httpx.options(f"{house.v1}/files/file-1")
    assert options.status_code == 204
    assert options.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert len(house.fake.requests) == 1


def test_bodies_pass_though_no_json_parser_would_keep_them(house: House) -> None:
    body = b'{"model":"fake-1", "messages":[{"role":"user","content":"\\u00e9"}], "x":1.00,"x":1}'
    headers = {"content-type": "application/json"}
    httpx.post(f"{house.v1}/chat/completions", content=body, headers=headers)
    (seen,) = house.fake.requests
    assert seen.body == body
    assert json.loads(seen.body)["x"] == 1
