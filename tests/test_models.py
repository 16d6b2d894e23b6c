"""Callers who may use certain models only."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ai_proxy_mw import AIProxy, Identity, Request, Upstream
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.conftest import IN_PROCESS
from tests.schema.makers import png, wav

Served = tuple[str, FakeUpstream]


@pytest.fixture(scope="module", params=IN_PROCESS)
def _served(request: pytest.FixtureRequest) -> Iterator[Served]:
    fake = FakeUpstream()
    with IN_PROCESS[request.param](_proxy(fake)) as url:
        yield f"{url}/v1", fake


@pytest.fixture
def served(_served: Served) -> Served:
    _served[1].reset()
    return _served


@pytest.fixture(scope="module", params=IN_PROCESS)
def _unread(request: pytest.FixtureRequest) -> Iterator[Served]:
    fake = FakeUpstream()
    with IN_PROCESS[request.param](_proxy(fake, validate=False)) as url:
        yield f"{url}/v1", fake


@pytest.fixture
def unread(_unread: Served) -> Served:
    """A proxy that judges nothing, and still holds callers to their models."""
    _unread[1].reset()
    return _unread


def _proxy(fake: FakeUpstream, **options: Any) -> AIProxy:
    async def identify(request: Request) -> Identity:
        models = request.headers.get("x-models")
        return Identity("alice", models=None if models is None else models.split(","))

    upstream = Upstream(base_url=FAKE_BASE_URL, transport=fake.transport())
    return AIProxy(upstream=upstream, identify=identify, max_body=10_000, **options)


RESTRICTED = {"x-models": "fake-1,gpt-4.1*", "content-type": "application/json"}
BY_FORM = {"x-models": "fake-1,gpt-4.1*"}


def _chat(model: object, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}


@pytest.mark.parametrize("model", ["fake-1", "gpt-4.1", "gpt-4.1-mini"])
def test_an_allowed_model_passes_byte_for_byte(served: Served, model: str) -> None:
    url, fake = served
    body = json.dumps(_chat(model, new_field=1.50), indent=1).encode()
    pieces = [body[:20], body[20:]]
    headers = {**RESTRICTED, "content-encoding": "identity"}
    answer = httpx.post(f"{url}/chat/completions", content=iter(pieces), headers=headers)
    assert answer.status_code == 200, answer.text
    assert [seen.body for seen in fake.requests] == [body]


@pytest.mark.parametrize(
    "body",
    [
        _chat("gpt-5"),
        _chat("GPT-4.1"),
        _chat("fake-1 "),
        _chat("gpt-4.1-mini,gpt-5"),
        _chat("fake-1", tools=[{"type": "image_generation", "model": "gpt-image-1"}]),
        _chat("fake-1", models=["fake-1", "gpt-5"]),
        _chat("fake-1", fallbacks=["gpt-5"]),
        _chat("fake-1", fallbacks=[{"model": "gpt-5"}]),
    ],
)
def test_another_model_is_403(served: Served, body: dict[str, Any]) -> None:
    url, fake = served
    answer = httpx.post(f"{url}/chat/completions", json=body, headers=RESTRICTED)
    _check_not_allowed(answer)
    assert fake.requests == []


def _check_not_allowed(answer: httpx.Response) -> None:
    assert answer.status_code == 403, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "permission_error",
        "model_not_allowed",
        "model",
    )


@pytest.mark.parametrize("body", [_chat(None), {"messages": []}, _chat("gpt-5")])
def test_another_model_is_403_where_nothing_is_judged(unread: Served, body: dict[str, Any]) -> None:
    url, fake = unread
    _check_not_allowed(httpx.post(f"{url}/chat/completions", json=body, headers=RESTRICTED))
    assert fake.requests == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("chat/completions", _chat(None), 400),
        ("chat/completions", {"messages": _chat("")["messages"]}, 400),
        ("moderations", {"input": "Hi"}, 403),
        ("images/generations", {"prompt": "a cat"}, 403),
        ("batches", {}, 403),
    ],
)
def test_a_call_that_names_no_model_is_refused(
    served: Served, path: str, body: dict[str, Any], status: int
) -> None:
    url, fake = served
    answer = httpx.post(f"{url}/{path}", json=body, headers=RESTRICTED)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == "model"
    assert fake.requests == []


def test_a_packed_call_is_read_for_its_model(served: Served) -> None:
    url, fake = served
    headers = {**RESTRICTED, "content-encoding": "gzip"}
    bodies = [gzip.compress(json.dumps(_chat(model)).encode()) for model in ("gpt-5", "fake-1")]
    refused = httpx.post(f"{url}/chat/completions", content=bodies[0], headers=headers)
    _check_not_allowed(refused)
    httpx.post(f"{url}/chat/completions", content=bodies[1], headers=headers)
    assert [seen.body for seen in fake.requests] == [bodies[1]]


REST = b'"messages":[{"role":"user","content":"Hi"}]}'
PLAIN = b'{"model":"fake-1",' + REST


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b'{"model":"fake-1","model":"gpt-5",' + REST, {}, 400, "duplicate_parameter"),
        (b'{"model":"fake-1","mod\\u0065l":"gpt-5",' + REST, {}, 400, "duplicate_parameter"),
        (b'{"model":["fake-1"],' + REST, {}, 400, "invalid_type"),
        (PLAIN[:-1], {}, 400, "invalid_json"),
        (b"x" * 10_001, {}, 413, "request_too_large"),
        (b"\x1f\x8b", {"content-encoding": "gzip"}, 400, "invalid_content_encoding"),
        (PLAIN, {"content-encoding": "compress"}, 415, "unsupported_content_encoding"),
        (b'{"model":"fake-1","Model":"gpt-5",' + REST, {}, 400, "duplicate_parameter"),
        (
            b'{"model":"fake-1","tools":[{"type":"image_generation","Model":"gpt-5"}],' + REST,
            {},
            400,
            "duplicate_parameter",
        ),
        *[
            (PLAIN, {"content-type": content_type}, 415, "unsupported_media_type")
            for content_type in (
                "application/x-www-form-urlencoded",
                "application/json; charset=utf-7",
                "text/plain",
                "",
            )
        ],
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(
    served: Served, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    url, fake = served
    answer = httpx.post(f"{url}/chat/completions", content=body, headers={**RESTRICTED, **headers})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert fake.requests == []


def test_a_query_could_name_another_model(served: Served) -> None:
    url, fake = served
    answer = httpx.post(
        f"{url}/chat/completions?model=gpt-5", json=_chat("fake-1"), headers=RESTRICTED
    )
    assert answer.status_code == 400
    assert fake.requests == []


SOUND = {"file": ("a.wav", wav())}
PICTURE = {"image": ("a.png", png())}


@pytest.mark.parametrize(
    ("path", "data", "files", "status"),
    [
        ("audio/transcriptions", {"model": "fake-1"}, SOUND, 200),
        ("audio/transcriptions", {"model": "gpt-5"}, SOUND, 403),
        ("audio/transcriptions", {"model": ["fake-1", "gpt-5"]}, SOUND, 400),
        ("audio/transcriptions", {"model": "fake-1", "Model": "gpt-5"}, SOUND, 400),
        ("audio/transcriptions", {"model": "fake-1,gpt-5"}, SOUND, 400),
        ("audio/transcriptions", {}, SOUND, 400),
        ("images/edits", {"prompt": "a hat", "model": "fake-1"}, PICTURE, 200),
        ("images/edits", {"prompt": "a hat", "model": "gpt-image-1"}, PICTURE, 403),
        ("images/edits", {"prompt": "a hat"}, PICTURE, 403),
    ],
)
def test_an_upload_passes_with_an_allowed_model(
    served: Served, path: str, data: dict[str, Any], files: Any, status: int
) -> None:
    url, fake = served
    answer = httpx.post(f"{url}/{path}", data=data, files=files, headers=BY_FORM)
    assert answer.status_code == status, answer.text
    whole = [seen for seen in fake.requests if seen.outcome == "complete"]
    assert len(whole) == (1 if status == 200 else 0)


def test_an_endpoint_whose_model_is_not_seen_is_403(unread: Served) -> None:
    """Uploads too, where they are not judged."""
    url, fake = unread
    upload = {"file": ("a.wav", b"RIFF")}
    for path in ("audio/transcriptions", "images/edits"):
        data = {"model": "fake-1"}
        answer = httpx.post(f"{url}/{path}", data=data, files=upload, headers=BY_FORM)
        assert answer.status_code == 403, path
    assert httpx.post(f"{url}/batches", json={}, headers=RESTRICTED).status_code == 403
    assert fake.requests == []


def test_what_runs_no_model_passes(served: Served) -> None:
    url, _ = served
    assert httpx.get(f"{url}/models", headers=RESTRICTED).status_code == 200
    assert httpx.get(f"{url}/models/fake-1", headers=RESTRICTED).status_code == 200
    assert httpx.get(f"{url}/models/gpt-5", headers=RESTRICTED).status_code == 403
    upload = {"file": ("a.jsonl", b"{}")}
    data = {"purpose": "batch"}
    answer = httpx.post(f"{url}/files", data=data, files=upload, headers=BY_FORM)
    assert answer.status_code == 200


def test_who_is_not_restricted_may_ask_for_all(served: Served, unread: Served) -> None:
    odd = b'{"model":"fake-1","model":"fake-1","messages":[{"role":"user","content":"Hi"}]}'
    for (url, _), status in ((served, 400), (unread, 200)):
        chat = f"{url}/chat/completions"
        assert httpx.post(chat, json=_chat("gpt-5")).status_code == 200
        headers = {"content-type": "application/json"}
        assert httpx.post(chat, content=odd, headers=headers).status_code == status
        nobody = httpx.post(chat, json=_chat("fake-1"), headers={"x-models": ""})
        assert nobody.status_code == 403
    assert httpx.post(f"{unread[0]}/chat/completions", content=odd).status_code == 200
