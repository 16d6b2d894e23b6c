"""Judged uploads over real sockets: who sends what, and what the upstream gets to see of it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI
from flask import Flask

from ai_proxy_mw import AIProxy, AIProxyMiddleware, AIProxyWSGIMiddleware, Upstream
from ai_proxy_mw.testing import FakeUpstream
from tests.servers import serve_asgi, serve_process, serve_wsgi, uvicorn_command
from tests.test_large import Peak

MIB = 1 << 20
MP3 = b"ID3\x04" + bytes(4000)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
TYPE = "multipart/form-data; boundary=line"
START = (
    b'--line\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--line\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'
)
END = b"\r\n--line--\r\n"

BLOCK = 64 * 1024  # what the WSGI door reads at once
SOME = START + MP3 + bytes(3 * BLOCK)


class House:
    """An app whose proxy judges uploads, and the fake behind it."""

    def __init__(self, url: str, fake: FakeUpstream) -> None:
        self.url = url
        self.fake = fake


def _asgi(fake_url: str, client: httpx.AsyncClient | None = None) -> AbstractContextManager[str]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        if client is not None:
            await client.aclose()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(AIProxyMiddleware, proxy=_proxy(fake_url, client))
    return serve_asgi(app)


def _asgi_with_a_client(fake_url: str) -> AbstractContextManager[str]:
    return _asgi(fake_url, httpx.AsyncClient())


def _wsgi(fake_url: str) -> AbstractContextManager[str]:
    app = Flask("house")
    app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, proxy=_proxy(fake_url))  # type: ignore[method-assign]
    return serve_wsgi(app)


def _proxy(fake_url: str, client: httpx.AsyncClient | None = None) -> AIProxy:
    return AIProxy(upstream=Upstream(base_url=fake_url, client=client), anonymous=True)


HOUSES = {"asgi": _asgi, "asgi-httpx": _asgi_with_a_client, "wsgi": _wsgi}


@pytest.fixture(scope="module", params=HOUSES)
def _house(request: pytest.FixtureRequest) -> Iterator[House]:
    fake = FakeUpstream(keep_body=8 * MIB)
    with fake.serve() as upstream, HOUSES[request.param](upstream.base_url) as url:
        yield House(url, fake)


@pytest.fixture
def house(_house: House) -> House:
    _house.fake.reset()
    return _house


@pytest.fixture
def sdk(house: House) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_official_client_transcribes(house: House, sdk: openai.OpenAI) -> None:
    answer = sdk.audio.transcriptions.create(
        model="whisper-1",
        file=("Grüße.mp3", MP3),
        language="de",
        temperature=0.5,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        include=["logprobs"],
        chunking_strategy={"type": "server_vad"},
        prompt="Ein Brief.\r\n",
    )
    assert answer.text.endswith("bytes received")
    assert MP3 in house.fake.requests[0].body


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of the client itself
def test_the_official_client_translates(house: House, sdk: openai.OpenAI) -> None:
    answer: Any = sdk.audio.translations.create(model="whisper-1", file=("a.mp3", MP3))
    assert answer.text.endswith("bytes received")


@pytest.mark.parametrize("many", [False, True])
def test_the_official_client_edits_pictures(house: House, sdk: openai.OpenAI, many: bool) -> None:
    picture = ("a.png", PNG)
    answer = sdk.images.edit(
        model="gpt-image-1",
        prompt="A cat",
        image=[picture, picture] if many else picture,
        mask=("m.png", PNG),
        n=2,
        size="1024x1024",
        output_compression=80,
    )
    assert answer.data is not None
    assert len(answer.data) == 2


def test_the_official_client_uploads_files(house: House, sdk: openai.OpenAI) -> None:
    kept = sdk.files.create(
        file=b"{}\n",
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert kept.object == "file"
    part = sdk.uploads.parts.create("upload_1", data=b"\r\n--")
    assert part.object == "upload.part"


def test_the_official_client_is_told_what_is_wrong(house: House, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.audio.transcriptions.create(model="whisper-1", file=("a.mp3", b"hello"))
    assert (caught.value.param, caught.value.code) == ("file", "unsupported_audio_format")
    assert not any(seen.arrived for seen in house.fake.requests)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"content-type": TYPE, "content-encoding": "gzip"},
    ],
)
def test_what_is_no_upload_is_refused(house: House, headers: dict[str, str]) -> None:
    answer = httpx.post(f"{house.url}/v1/files", content=b"x", headers=headers)
    assert answer.status_code == 415
    assert house.fake.requests == []


@pytest.mark.parametrize("content", [b"", b"--line\r\n"])
def test_what_is_no_whole_upload_is_refused(house: House, content: bytes) -> None:
    answer = httpx.post(f"{house.url}/v1/files", content=content, headers={"content-type": TYPE})
    assert answer.json()["error"]["code"] == "invalid_multipart"
    assert not any(seen.arrived for seen in house.fake.requests)


class Slow:
    """A caller that sends piece by piece, as a slow line would."""

    def __init__(self, house: House, framing: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", int(house.url.rsplit(":")[-1])), 10)
        self._chunked = framing == "chunked"
        head = (
            "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            f"content-type: {TYPE}\r\n"
        )
        head += "transfer-encoding: chunked" if self._chunked else f"content-length: {framing}"
        self._socket.sendall(f"{head}\r\n\r\n".encode())

    def send(self, data: bytes) -> None:
        self._socket.sendall(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        if self._chunked:
            self._socket.sendall(b"0\r\n\r\n")

    def answer(self) -> tuple[int, Any]:
        """The status and the answer, or what it says of the error."""
        # By its length: a server may wait for the rest of the upload before it closes.
        with self._socket, HTTPResponse(self._socket) as response:
            response.begin()
            return response.status, json.loads(response.read()).get("error")


def _field(name: str, value: str) -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    return f"\r\n--line\r\n{head}\r\n\r\n{value}".encode()


@pytest.mark.parametrize("framing", ["chunked", str(MIB)])
@pytest.mark.parametrize(
    ("wrong", "param", "code"),
    [
        (b"\r\n--line\nContent-Disposition: form-data; name=n", None, "invalid_multipart"),
        (_field("temperature", "9") + b"\r\n--line\r\n", "temperature", "invalid_value"),
        (_field("model", "tts-1"), "model", "duplicate_parameter"),
    ],
)
def test_a_part_that_turns_out_wrong_breaks_the_upload_off(
    house: House, framing: str, wrong: bytes, param: str | None, code: str
) -> None:
    with _broken_off(house.fake):
        caller = Slow(house, framing)
        caller.send(SOME)
        _until(lambda: house.fake.calls_open == 1)
        caller.send(wrong + bytes(BLOCK))
        status, error = caller.answer()
        assert (status, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (b"\r\n", "invalid_multipart"),
        (b"\r\n--line\r\n", "invalid_multipart"),
        (END + b"x", "invalid_multipart"),
        (_field("temperature", "9") + END, "invalid_value"),
    ],
)
def test_an_upload_wrong_at_its_end_is_never_completed(
    house: House, declared: bool, ending: bytes, code: str
) -> None:
    with _broken_off(house.fake):
        caller = Slow(house, str(len(SOME) + len(ending)) if declared else "chunked")
        caller.send(SOME)
        _until(lambda: house.fake.calls_open == 1)
        caller.send(ending)
        caller.end()
        status, error = caller.answer()
        assert (status, error["code"]) == (400, code)


@contextmanager
def _broken_off(fake: FakeUpstream) -> Iterator[None]:
    """The upstream sees one call that never comes whole, and no connection stays for it."""
    before = fake.connections_open
    yield
    assert not fake.wait_for_disconnect().arrived
    assert len(fake.requests) == 1
    _until(lambda: fake.calls_open == 0 and fake.connections_open <= before)


def _until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_slow_upload_arrives_as_it_was_sent(house: House) -> None:
    pieces = [SOME, b"\r\n--lin", b"e\r\nContent-Disposition: form-data; name=x\r\n\r\n1"]
    pieces += [b"\r", b"\n--line", b"-", b"-", b"\r\n"]
    caller = Slow(house, "chunked")
    for piece in pieces:
        caller.send(piece)
        time.sleep(0.02)
    caller.end()
    assert caller.answer()[0] == 200
    assert house.fake.requests[0].body == b"".join(pieces)


@pytest.mark.slow
def test_100_mb_pass_in_little_memory(tmp_path: Path) -> None:
    fake = FakeUpstream(keep_body=0)
    with fake.serve() as upstream:
        env = {
            "AI_PROXY_UPSTREAM": upstream.base_url,
            "AI_PROXY_ANONYMOUS": "1",
            "AI_PROXY_MAX_BODY": "512M",
        }
        command = uvicorn_command("tests.apps.judging_uploads:app")
        with serve_process(command, env) as process:
            _large(process.url, MIB)
            peak = Peak(process.process.pid)
            with peak.watching():
                sent = _large(process.url, 100 * MIB)
    seen = fake.requests[1]
    assert (seen.sha256, seen.body_size) == sent
    assert peak.growth < 20 * MIB


def _large(url: str, size: int) -> tuple[str, int]:
    """Upload a file of that size; the digest and length of the request's body."""
    digest = hashlib.sha256()
    block = os.urandom(64 * 1024)
    length = 0

    def pieces() -> Iterator[bytes]:
        nonlocal length
        head = b'--line\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
        for piece in (head, *[block] * (size // len(block)), _field("purpose", "batch"), END):
            digest.update(piece)
            length += len(piece)
            yield piece

    answer = httpx.post(
        f"{url}/v1/files", content=pieces(), headers={"content-type": TYPE}, timeout=60
    )
    assert answer.status_code == 200
    return digest.hexdigest(), length
