"""One list of the models of several upstreams, over real sockets and through both doors."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anthropic
import httpx
import openai
import pytest

from ai_proxy_mw import (
    DEFAULT_ENDPOINTS,
    AIProxy,
    Cache,
    Identity,
    MemoryCache,
    Models,
    Request,
    Upstream,
)
from ai_proxy_mw.testing import FakeUpstream
from tests.conftest import IN_PROCESS

NAME = "shop"
CLAUDE = {
    "id": "claude-sonnet-4.5",
    "type": "model",
    "display_name": "Claude Sonnet 4.5",
    "created_at": "2025-09-29T00:00:00Z",
    "max_tokens": 1.50,
}


class Served:
    """A proxy before upstreams of its own."""

    def __init__(
        self, client: httpx.Client, url: str, first: FakeUpstream, second: FakeUpstream
    ) -> None:
        self.client = client
        self.url = url
        self.first = first
        self.second = second

    def get(self, path: str = "models", **headers: str) -> httpx.Response:
        return self.client.get(f"{self.url}/{path}", headers=_lines(headers))

    def ids(self, **headers: str) -> list[str]:
        answer = self.get(**headers)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["data"]]


def _lines(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


async def _identify(request: Request) -> Identity:
    models = request.headers.get("x-models")
    return Identity("alice", models=None if models is None else models.split(","))


@contextmanager
def serve(kind: str, *, first: Any = None, second: Any = None, **options: Any) -> Iterator[Served]:
    """first, second: what is said of the upstreams; no second one if it says False."""
    one = FakeUpstream(models=["gpt-4.1", "gpt-4.1-mini", "shared"])
    two = FakeUpstream(models=["shared", "claude-sonnet-4.5", "claude-opus-4"])
    with ExitStack() as stack:
        urls = [stack.enter_context(fake.serve()).base_url for fake in (one, two)]
        upstreams = [Upstream(**{"base_url": urls[0], "name": "one", **(first or {})})]
        if second is not False:
            said = {"base_url": urls[1], "name": "two", "priority": 1, **(second or {})}
            upstreams.append(Upstream(**said))
        options = {"identify": _identify, "name": NAME, **options}
        proxy = AIProxy(upstreams=upstreams, **options)
        url = stack.enter_context(IN_PROCESS[kind](proxy))
        client = stack.enter_context(httpx.Client(timeout=20, verify=False))
        yield Served(client, f"{url}/v1", one, two)


ANTHROPIC = {
    "api_key": "k",
    "auth": "x-api-key",
    "models": {"claude": "claude-sonnet-4.5", "old": "claude-2", "claude-o*": "claude-opus-4"},
}


@pytest.fixture(scope="module", params=IN_PROCESS)
def _merged(request: pytest.FixtureRequest) -> Iterator[Served]:
    aliases = {"fast": "gpt-4.1-mini", "shared": "gpt-4.1"}
    models = Models(aliases=aliases)
    with serve(request.param, second=ANTHROPIC, models=models, circuit=False) as served:
        yield served


@pytest.fixture
def merged(_merged: Served) -> Served:
    _merged.first.reset()
    _merged.second.reset()
    return _merged


@pytest.fixture(params=IN_PROCESS)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


EVERYTHING = ["gpt-4.1", "gpt-4.1-mini", "shared", "claude-opus-4", "claude", "old", "fast"]


def test_the_list_is_that_of_all_upstreams(merged: Served) -> None:
    answer = merged.get(accept="application/json")
    body = answer.json()
    by_id = {each["id"]: each for each in body["data"]}
    assert sorted(by_id) == sorted(EVERYTHING)
    assert len(body["data"]) == len(by_id)
    assert (body["object"], body["has_more"]) == ("list", False)
    assert (body["first_id"], body["last_id"]) == (body["data"][0]["id"], body["data"][-1]["id"])
    assert by_id["gpt-4.1"]["owned_by"] == "fake"
    # An alias is another model than the one an upstream calls so.
    assert {name for name in by_id if by_id[name]["owned_by"] == NAME} == {"fast", "old", "shared"}
    assert answer.headers["cache-control"] == "private"
    assert answer.headers["content-security-policy"] == "sandbox"
    assert len(merged.first.requests) == len(merged.second.requests) == 1


def test_each_upstream_is_asked_in_its_own_way(merged: Served) -> None:
    merged.get("models?limit=2&after_id=x", content_type="a/b", accept_encoding="gzip")
    first, second = merged.first.requests[0], merged.second.requests[0]
    assert (first.path, first.query) == ("/v1/models", "")
    assert (second.path, second.query) == ("/v1/models", "limit=1000")
    told = dict(second.headers)
    assert (told[b"anthropic-version"], told[b"x-api-key"]) == (b"2023-06-01", b"k")
    assert not {b"anthropic-version", b"content-type"} & set(dict(first.headers))
    merged.get(anthropic_version="2024-01-01")
    assert dict(merged.second.requests[1].headers)[b"anthropic-version"] == b"2024-01-01"


def test_entries_stay_as_the_upstream_wrote_them(merged: Served) -> None:
    raw = b'{ "id":"gpt-4.1","n":1.50,  "big":12345678901234567890123 }'
    merged.first.fail(200, body=b'{"data":[' + raw + b',{"id":"gpt-4.1","n":2}]}')
    merged.second.fail(200, body=json.dumps({"data": [CLAUDE], "has_more": True}).encode())
    answer = merged.get()
    assert raw in answer.content
    assert b'"n":2}' not in answer.content
    listed = {each["id"]: each for each in answer.json()["data"]}
    assert listed["claude"] == {**CLAUDE, "id": "claude"}
    assert "claude-sonnet-4.5" not in listed


def test_the_official_clients_read_it(merged: Served) -> None:
    with openai.OpenAI(base_url=merged.url, api_key="x") as client:
        assert {each.id for each in client.models.list()} == set(EVERYTHING)
        assert client.models.retrieve("claude").id == "claude"
        assert client.models.retrieve("fast").owned_by == NAME
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-9")
    base = merged.url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=base, api_key="x") as other:
        assert {each.id for each in other.models.list(limit=2)} == set(EVERYTHING)
        assert other.models.retrieve("fast").display_name == "fast"
        assert other.models.retrieve("fast").created_at.year == 1970


def test_a_model_is_there_if_it_is_listed(merged: Served) -> None:
    for name in EVERYTHING:
        answer = merged.get(f"models/{name}")
        assert (answer.status_code, answer.json()["id"]) == (200, name)
    for name in ("claude-sonnet-4.5", "gpt-9", "org/model"):
        answer = merged.get(f"models/{name}")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (404, "model_not_found")
        assert error["param"] == "model"


def test_callers_see_what_they_may_use(merged: Served) -> None:
    assert merged.ids(x_models="gpt-4.1*") == ["gpt-4.1", "gpt-4.1-mini", "shared", "fast"]
    assert merged.ids(x_models="fast,old") == ["old", "fast"]
    assert merged.ids(x_models="") == []
    empty = merged.get(x_models="").json()
    assert (empty["first_id"], empty["last_id"], empty["has_more"]) == (None, None, False)
    assert merged.get("models/claude", x_models="fast").status_code == 403
    assert merged.get("models/fast", x_models="fast").status_code == 200


def test_other_calls_pass(merged: Served) -> None:
    body = {"model": "claude", "messages": [{"role": "user", "content": "Hi"}]}
    answer = merged.client.post(f"{merged.url}/chat/completions", json=body)
    assert answer.status_code == 200


def test_head_has_no_body(merged: Served) -> None:
    whole = merged.get()
    answer = merged.client.head(f"{merged.url}/models")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == whole.headers["content-length"]
    assert merged.second.requests[-1].method == "GET"
    merged.first.fail(500)
    merged.second.fail(500)
    failed = merged.client.head(f"{merged.url}/models")
    assert (failed.status_code, failed.content) == (500, b"")


def test_one_that_fails_is_left_out(merged: Served) -> None:
    merged.first.fail(500)
    answer = merged.get()
    assert answer.headers["x-ai-proxy-partial"] == "1"
    ids = [each["id"] for each in answer.json()["data"]]
    assert sorted(ids) == sorted(["claude", "claude-opus-4", "old", "fast", "shared"])
    merged.second.disconnect()
    assert "gpt-4.1" in merged.ids()
    assert "x-ai-proxy-partial" not in merged.get().headers


def test_that_all_fail_is_an_error(door: str) -> None:
    with serve(door) as served:
        served.first.fail(429, code="slow_down", headers={"retry-after": "7"})
        served.second.disconnect()
        answer = served.get()
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "slow_down")
        assert answer.headers["retry-after"] == "7"


def test_that_all_are_silent_is_an_error(door: str) -> None:
    with serve(door) as served:
        served.first.disconnect()
        served.second.fail(404)
        answer = served.get()
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_disconnected"


def test_what_may_be_there_is_not_said_to_be_missing(merged: Served) -> None:
    merged.first.fail(500, code="oh")
    answer = merged.get("models/gpt-4.1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "oh")
    merged.first.fail(500)
    assert merged.get("models/claude-opus-4").status_code == 200


GARBAGE = [
    b"",
    b"<html>",
    b"null",
    b"7",
    b'"data"',
    b'{"data":7}',
    b'{"data":{"id":"evil"}}',
    b'{"data":[{"id":"evil"}',
    b'{"data":[{"id":"evil"}]}]',
    b'{"data":[{"id":"evil","x":"\xff"}]}',
    b'{"data":[{"id":"evil","x":NaN}]}',
    b"[" * 100_000,
    b'{"data":[{"id":"evil","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    b'{"data":[{"id":"evil","x":"' + b"x" * (4 << 20) + b'"}]}',
]


@pytest.mark.parametrize("body", GARBAGE, ids=map(str, range(len(GARBAGE))))
def test_what_is_no_list_is_left_out(merged: Served, body: bytes) -> None:
    merged.second.fail(200, body=body)
    answer = merged.get()
    assert answer.headers["x-ai-proxy-partial"] == "1"
    ids = [each["id"] for each in answer.json()["data"]]
    assert "evil" not in ids
    assert "gpt-4.1" in ids


@pytest.mark.parametrize("status", [204, 206, 304])
def test_an_answer_of_another_kind_is_no_list(merged: Served, status: int) -> None:
    merged.first.fail(status, body=b"")
    assert merged.get().headers["x-ai-proxy-partial"] == "1"


@pytest.mark.parametrize(
    "body", [b'{"data":null}', b"{}", b" []", b'{"data":[7,null,"x",[],{"id":7},{"id":""},{}]}']
)
def test_odd_lists_are_lists(merged: Served, body: bytes) -> None:
    merged.first.fail(200, body=body)
    answer = merged.get()
    assert "x-ai-proxy-partial" not in answer.headers
    assert "claude" in [each["id"] for each in answer.json()["data"]]


def test_names_that_nobody_could_ask_for_are_left_out(merged: Served) -> None:
    names = ["a\nb", "x" * 257, "\u2028", "\x7f", "fine", "gpt-*"]
    body = json.dumps([{"id": name} for name in names]).encode()
    merged.first.fail(200, body=gzip.compress(body), headers={"content-encoding": "gzip"})
    assert {"fine", "gpt-*"} == set(merged.ids()) - set(EVERYTHING)


def test_a_list_without_end_is_cut(merged: Served) -> None:
    many = [{"id": f"m-{number}"} for number in range(20_000)]
    merged.first.fail(200, body=json.dumps({"data": [*many, *many]}).encode())
    ids = merged.ids()
    assert "claude" in ids
    assert len([name for name in ids if name.startswith("m-")]) == 10_000


def test_lanes_that_are_left_alone_are_not_asked(door: str) -> None:
    with serve(door) as served:
        served.first.fail(429, headers={"retry-after": "60"})
        assert "gpt-4.1" not in served.ids()
        assert "gpt-4.1" not in served.ids()
        assert len(served.first.requests) == 1
        served.second.fail(429, headers={"retry-after": "50"})
        assert served.get().status_code == 503
        last = served.get()
        assert last.json()["error"]["code"] == "upstream_unavailable"
        assert 50 < int(last.headers["retry-after"]) <= 60


def test_upstreams_that_list_nothing_are_not_asked(door: str) -> None:
    deployments = {"models": ["gpt-4.1-azure", "x-*"], "query": {"api-version": "1"}}
    endpoints = DEFAULT_ENDPOINTS - {"GET /models"}
    azure = {"base_url": "http://127.0.0.1:1/deployments/{model}", **deployments}
    with serve(door, first=azure, second={"endpoints": endpoints, "models": ["b"]}) as served:
        assert served.ids() == ["gpt-4.1-azure", "b"]
        assert served.get("models/b").status_code == 200
        assert served.get("models/x-1").status_code == 404
        assert served.second.requests == []


def test_one_upstream_with_an_allow_list(door: str) -> None:
    models = Models(["gpt-4.1*", "claude"], aliases={"fast": "gpt-4.1-mini"})
    with serve(door, second=False, models=models) as served:
        assert served.ids() == ["gpt-4.1", "gpt-4.1-mini", "fast"]
        assert served.get("models/fast").json()["owned_by"] == NAME
        assert served.get("models/gpt-4.1").json()["owned_by"] == "fake"  # relayed
        assert [seen.path for seen in served.first.requests[-1:]] == ["/v1/models/gpt-4.1"]
        assert served.get("models/shared").status_code == 403


def test_one_upstream_with_names_of_its_own(door: str) -> None:
    with serve(door, first={"models": {"mine": "gpt-4.1"}}, second=False) as served:
        assert served.ids() == ["mine"]
        assert served.get("models/mine").json()["owned_by"] == "fake"


def test_an_alias_for_what_nobody_has_is_not_listed(door: str) -> None:
    models = Models(aliases={"far": "nowhere", "near": "gpt-4.1"})
    with serve(door, first={"models": ["gpt-*"]}, second=False, models=models) as served:
        assert served.ids() == ["gpt-4.1", "gpt-4.1-mini", "near"]


def test_a_plain_list_passes_untouched(door: str) -> None:
    body = b'{"data": [{"id":"a"}],\n "other": 1.50}'
    with serve(door, second=False) as served:
        served.first.fail(200, body=body, path="/models")
        assert served.get("models?x=1").content == body
        assert served.first.requests[0].query == "x=1"
        assert served.ids(x_models="shared") == ["shared"]
        for _ in range(25):  # which is no reason to leave the only upstream alone
            served.first.fail(500, path="/models")
            assert served.get(x_models="shared").status_code == 500
        assert served.ids(x_models="shared") == ["shared"]


def test_the_list_is_kept_for_those_who_may_see_it(door: str) -> None:
    cache = Cache(MemoryCache(), scope="shared")
    with serve(door, cache=cache) as served:
        served.first.fail(500)
        assert "gpt-4.1" not in served.ids()  # in part, and so not kept
        everything = served.ids()
        assert "gpt-4.1" in everything
        asked = len(served.second.requests)
        assert served.ids() == everything
        assert len(served.second.requests) == asked
        assert served.ids(x_models="shared") == ["shared"]
        assert served.ids(x_models="gpt-4.1,shared") == ["gpt-4.1", "shared"]
        assert served.ids(x_models="shared,gpt-4.1") == ["gpt-4.1", "shared"]
        assert len(served.second.requests) == asked + 2
