"""Answers that say that all is well, and are none."""

from __future__ import annotations

import gzip

import pytest

from ai_proxy_mw._encoding import Decoded
from ai_proxy_mw._http import BytesBody, Response
from ai_proxy_mw._types import RawHeaders
from ai_proxy_mw.routing.wrong import looks_wrong
from tests.routing.bodies import Scripted
from tests.transport._harness import in_loop

CHAT = "POST /chat/completions"
JSON = (b"content-type", b"application/json")
HTML = (b"content-type", b"Text/HTML; charset=utf-8")


def answer(status: int = 200, *headers: tuple[bytes, bytes], body: bytes = b"{}") -> Response:
    return Response(status, list(headers), body)


def test_an_answer_is_not_wrong() -> None:
    assert not looks_wrong(answer(200, JSON), CHAT)
    assert not looks_wrong(answer(200), CHAT)
    assert not looks_wrong(answer(200, (b"content-length", b"2"), JSON), CHAT)
    text = answer(200, (b"content-type", b"text/plain"))
    assert not looks_wrong(text, "POST /audio/transcriptions")


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_nothing_is_wrong(status: int) -> None:
    assert looks_wrong(answer(status, JSON, body=b""), CHAT)


def test_a_length_of_nothing_is_wrong_though_the_end_is_not_known_yet() -> None:
    headers: RawHeaders = [JSON, (b"content-length", b"0")]
    assert looks_wrong(Response(200, headers, Scripted(b"x")), CHAT)
    assert not looks_wrong(Response(200, [JSON], Scripted(b"x")), CHAT)


def test_a_page_is_wrong() -> None:
    assert looks_wrong(answer(200, HTML), CHAT)
    assert looks_wrong(answer(200, (b"date", b"now"), HTML), "POST /audio/speech")
    assert not looks_wrong(answer(200, (b"x-content-type", b"text/html")), CHAT)


@pytest.mark.parametrize("status", [199, 301, 400, 404, 500])
def test_other_statuses_speak_for_themselves(status: int) -> None:
    assert not looks_wrong(answer(status, HTML, body=b""), CHAT)


@pytest.mark.parametrize(
    "endpoint", ["GET /models", "DELETE /files/{id}", "POST /files", "POST /feedback", ""]
)
def test_where_no_model_runs_or_nobody_knows_all_is_right(endpoint: str) -> None:
    assert not looks_wrong(answer(204, HTML, body=b""), endpoint)


@in_loop
async def test_nothing_that_was_announced_as_compressed_is_wrong() -> None:
    for packed in (b"", gzip.compress(b"")):
        response = Response(200, [JSON], Decoded(BytesBody(packed), b"gzip"))
        await response.body.ready()
        assert looks_wrong(response, CHAT)
    response = Response(200, [JSON], Decoded(BytesBody(gzip.compress(b"{}")), b"gzip"))
    assert not looks_wrong(response, CHAT)
    await response.body.ready()
    assert not looks_wrong(response, CHAT)
