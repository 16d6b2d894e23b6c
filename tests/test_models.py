"""Callers who may use certain models only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ai_proxy_mw import AIProxy, Identity, Request, Upstream
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.conftest import IN_PROCESS


@pytest.fixture(scope="module", params=IN_PROCESS)
def _served(request: pytest.FixtureRequest) -> Iterator[tuple[str, FakeUpstream]]:
    fake = FakeUpstream()
    with IN_PROCESS[request.param](_proxy(fake)) as url:
        yield f"{url}/v1", fake


@pytest.fixture
def served(_served: tuple[str, FakeUpstream]) -> tuple[str, FakeUpstream]:
    _served[1].reset()
    return _served


def _proxy(fake: FakeUpstream) -> AIProxy:
    async def identify(request: Request) -> Identity:
        models = request.headers.get("x-models")
        return Identity("alice", models=None if models is None else models.split(","))

    upstream = Upstream(base_url=FAKE_BASE_URL, transport=fake.transport())
    return AIProxy(upstream=upstream, identify=identify, max_body=10_000)


RESTRICTED = {"x-models": "fake-1,gpt-4.1*", "content-type": "application/json"}
BY_FORM = {"x-models": "fake-1,gpt-4.1*"}


def _chat(model: object, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}


@pytest.mark.parametrize("model", ["fake-1", "gpt-4.1", "gpt-4.1-mini"])
def test_an_allowed_model_passes_byte_for_byte(
    served: tuple[str, FakeUpstream], model: str
) -> None:
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
        _chat(None),
        _chat("gpt-4.1-mini,gpt-5"),
        _chat("fake-1", tools=[{"type": "image_generation", "model": "gpt-image-1"}]),
        _chat("fake-1", models=["fake-1", "gpt-5"]),
        _chat("fake-1", fallbacks=["gpt-5"]),
        {"messages": []},
    ],
)
def test_another_model_is_403(served: tuple[str, FakeUpstream], body: dict[str, Any]) -> None:
    url, fake = served
    answer = httpx.post(f"{url}/chat/completions", json=body, headers=RESTRICTED)
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "permission_error",
        "model_not_allowed",
        "model",
    )
    assert fake.requests == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"model":"fake-1","model":"gpt-5","messages":[]}', {}, 400),
        (b'{"model":"fake-1","mod\\u0065l":"gpt-5","messages":[]}', {}, 400),
        (b'{"model":["fake-1"]}', {}, 400),
        (b'{"model":"fake-1"', {}, 400),
        (b'{"model":"fake-1","fallbacks":[{"model":"gpt-5"}]}', {}, 400),
        (b"x" * 10_001, {}, 413),
        (b"\x1f\x8b", {"content-encoding": "gzip"}, 415),
        (b'{"model":"fake-1","Model":"gpt-5"}', {}, 400),
        (b'{"model":"fake-1"}', {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b'{"model":"fake-1"}', {"content-type": "application/json; charset=utf-7"}, 415),
        (b'{"model":"fake-1"}', {"content-type": "text/plain"}, 415),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(
    served: tuple[str, FakeUpstream], body: bytes, headers: dict[str, str], status: int
) -> None:
    url, fake = served
    answer = httpx.post(f"{url}/chat/completions", content=body, headers={**RESTRICTED, **headers})
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert fake.requests == []


def test_a_query_could_name_another_model(served: tuple[str, FakeUpstream]) -> None:
    url, fake = served
    answer = httpx.post(
        f"{url}/chat/completions?model=gpt-5", json=_chat("fake-1"), headers=RESTRICTED
    )
    assert answer.status_code == 400
    assert fake.requests == []


def test_an_endpoint_whose_model_is_not_seen_is_403(served: tuple[str, FakeUpstream]) -> None:
    url, fake = served
    upload = {"file": ("a.wav", b"RIFF")}
    for path in ("audio/transcriptions", "images/edits"):
        data = {"model": "fake-1"}
        answer = httpx.post(f"{url}/{path}", data=data, files=upload, headers=BY_FORM)
        assert answer.status_code == 403, path
    assert httpx.post(f"{url}/batches", json={}, headers=RESTRICTED).status_code == 403
    assert fake.requests == []


def test_what_runs_no_model_passes(served: tuple[str, FakeUpstream]) -> None:
    url, _ = served
    assert httpx.get(f"{url}/models", headers=RESTRICTED).status_code == 200
    assert httpx.get(f"{url}/models/fake-1", headers=RESTRICTED).status_code == 200
    assert httpx.get(f"{url}/models/gpt-5", headers=RESTRICTED).status_code == 403
    upload = {"file": ("a.jsonl", b"{}")}
    data = {"purpose": "batch"}
    answer = httpx.post(f"{url}/files", data=data, files=upload, headers=BY_FORM)
    assert answer.status_code == 200


def test_who_is_not_restricted_may_ask_for_all(served: tuple[str, FakeUpstream]) -> None:
    url, _ = served
    assert httpx.post(f"{url}/chat/completions", json=_chat("fake-1")).status_code == 200
    odd = b'{"model":"fake-1","model":"fake-1","messages":[{"role":"user","content":"Hi"}]}'
    assert httpx.post(f"{url}/chat/completions", content=odd).status_code == 200
    nobody = httpx.post(f"{url}/chat/completions", json=_chat("fake-1"), headers={"x-models": ""})
    assert nobody.status_code == 403
