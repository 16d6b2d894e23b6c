"""Judged uploads over real sockets: who sends what, and what the upstream gets to see of it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI
from flask import Flask

from ai_proxy_mw import AIProxy, AIProxyMiddleware, AIProxyWSGIMiddleware, Timeouts, Upstream
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


class House:
    """An app whose proxy judges uploads, and the fake behind it."""

    def __init__(self, url: str, fake: FakeUpstream, proxy: AIProxy) -> None:
        self.url = url
        self.fake = fake
        self.proxy = proxy

    @property
    def sdk(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)


def _asgi(proxy: AIProxy) -> AbstractContextManager[str]:
    app = FastAPI()
    app.add_middleware(AIProxyMiddleware, proxy=proxy)
    return serve_asgi(app)


def _wsgi(proxy: AIProxy) -> AbstractContextManager[str]:
    app = Flask("house")
    app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, proxy=proxy)  # type: ignore[method-assign]
    return serve_wsgi(app)


@contextmanager
def _open(door: Callable[[AIProxy], AbstractContextManager[str]], client: bool) -> Iterator[House]:
    fake = FakeUpstream(keep_body=8 * MIB)
    with fake.serve() as upstream:
        proxy = AIProxy(
            upstream=Upstream(
                base_url=upstream.base_url,
                client=httpx.AsyncClient() if client else None,
                timeouts=Timeouts(body=5),
            ),
            anonymous=True,
            max_body=512 * MIB,
            scan_uploads=True,
        )
        with door(proxy) as url:
            yield House(url, fake, proxy)


HOUSES = {
    "asgi": (_asgi, False),
    "asgi-httpx": (_asgi, True),
    "wsgi": (_wsgi, False),
}


@pytest.fixture(scope="module", params=HOUSES)
def _house(request: pytest.FixtureRequest) -> Iterator[House]:
    with _open(*HOUSES[request.param]) as house:
        yield house


@pytest.fixture
def house(_house: House) -> House:
    _house.fake.reset()
    return _house


def test_the_official_client_transcribes(house: House) -> None:
    answer = house.sdk.audio.transcriptions.create(
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


def test_the_official_client_translates(house: House) -> None:
    answer: Any = house.sdk.audio.translations.create(model="whisper-1", file=("a.mp3", MP3))
    assert answer.text.endswith("bytes received")


@pytest.mark.parametrize("many", [False, True])
def test_the_official_client_edits_pictures(house: House, many: bool) -> None:
    picture = ("a.png", PNG)
    answer = house.sdk.images.edit(
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


def test_the_official_client_uploads_files(house: House) -> None:
    sdk = house.sdk
    kept = sdk.files.create(
        file=b"{}\n",
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert kept.object == "file"
    part = sdk.uploads.parts.create("upload_1", data=b"\r\n--")
    assert part.object == "upload.part"


def test_the_official_client_is_told_what_is_wrong(house: House) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        house.sdk.audio.transcriptions.create(model="whisper-1", file=("a.mp3", b"hello"))
    assert (caught.value.param, caught.value.code) == ("file", "unsupported_audio_format")
    assert house.fake.requests == []


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
    assert house.fake.requests == []


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
        received = b""
        with self._socket:
            while piece := self._socket.recv(65536):
                received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body).get("error")


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
        caller.send(START + MP3)
        _until(lambda: house.fake.calls_open == 1)
        for _ in range(3):
            caller.send(bytes(65536))
        caller.send(wrong)
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
        content = START + MP3
        caller = Slow(house, str(len(content) + len(ending)) if declared else "chunked")
        caller.send(content)
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
    pieces = [START + MP3, bytes(70_000), b"\r\n--lin", b"e-", b"-", b"\r\n"]
    pieces[3:5] = [b"e\r\nContent-Disposition: form-data; name=n\r\n\r\n1", b"\r\n--line", b"--"]
    caller = Slow(house, "chunked")
    for piece in pieces:
        caller.send(piece)
        time.sleep(0.02)
    caller.end()
    assert caller.answer()[0] == 200
    assert house.fake.requests[0].body == b"".join(pieces)


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
