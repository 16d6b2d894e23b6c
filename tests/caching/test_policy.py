"""Which calls have a place in the cache, and which one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ai_proxy_mw import Cache, Identity, MemoryCache
from ai_proxy_mw.caching.policy import Plan, Policy
from tests.caching.house import question, request

POST = "POST /chat/completions"


def plan(
    body: dict[str, Any] | bytes | None = None,
    *,
    headers: dict[str, str] | None = None,
    identity: Identity | None = None,
    endpoint: str = POST,
    forwarded: tuple[str, ...] = (),
    app: str = "default",
    upstream: str = "http://a/v1",
    **cache: Any,
) -> Plan | None:
    asked = request(headers=headers, method=endpoint.split(" ", maxsplit=1)[0])
    asked.endpoint = endpoint
    asked.subject = "alice" if identity is None else identity.subject
    asked.identity = identity
    if body is not None:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        call: Any = SimpleNamespace(
            body=lambda: content, model="fake-1", stream=b'"stream":true' in content
        )
        asked.call = call
    policy = Policy(Cache(MemoryCache(), **cache), app=app, upstream=upstream, forwarded=forwarded)
    return asyncio.run(policy.plan(asked))


def key(*arguments: Any, **more: Any) -> str:
    found = plan(*arguments, **more)
    assert found is not None
    return found.key


def test_a_plan_says_what_it_can_be_purged_by() -> None:
    found = plan(question())
    assert found is not None
    assert (found.subject, found.endpoint, found.model, found.is_get) == (
        "alice", POST, "fake-1", False,
    )  # fmt: skip
    assert len(set(found.tags)) == 3
    models = plan(endpoint="GET /models")
    assert models is not None
    assert models.is_get
    assert models.model == ""


def test_what_makes_no_difference() -> None:
    plain = key(question())
    assert key(dict(reversed(question().items()))) == plain
    assert key(question(user="u", metadata={"a": "b"})) == plain
    assert key(question(), headers={"accept": "*/*"}) == plain
    both = {"accept": "text/event-stream, application/json;q=0.5"}
    assert key(question(), headers=both) != plain  # some would answer with a stream
    stream = question(stream=True)
    assert key(stream, headers=both) == key(stream)
    assert key(question(), headers={"idempotency-key": "1", "x-stainless-os": "x"}) == plain


@pytest.mark.parametrize(
    "more",
    [
        {"headers": {"accept": "audio/mpeg"}},
        {"headers": {"openai-beta": "x"}},
        {"headers": {"idempotency-key": "x"}, "scope": "shared"},
        {"headers": {"x-tenant": "t"}, "vary": ["X-Tenant"]},
        {"headers": {"x-tenant": "t"}, "forwarded": ("X-Tenant",)},
        {"identity": Identity("bob")},
        {"identity": Identity("alice", scope="team")},
        {"scope": "shared"},
        {"scope": lambda request: "alice"},
        {"app": "other"},
        {"upstream": "http://b/v1"},
        {"body": question(seed=1)},
        {"body": question(user="u"), "vary": ["user"]},
    ],
)
def test_what_makes_one(more: dict[str, Any]) -> None:
    assert key(**{"body": question(), **more}) != key(question())


def test_whose_it_is() -> None:
    team = [key(question(), identity=Identity(name, scope="team")) for name in "ab"]
    assert team[0] == team[1]
    shared = [key(question(), identity=Identity(name), scope="shared") for name in "ab"]
    assert shared[0] == shared[1]
    assert key(question(), identity=Identity("team")) != team[0]


def test_what_stays_out() -> None:
    assert plan(question(), when=lambda request: False) is None
    assert plan(question(), when=lambda request: True) is not None
    assert plan(question(), scope=lambda request: None) is None
    assert plan(question(store=True)) is None
    assert plan(b'{"a": 1, "a": 2}') is None
    assert plan(question(), temperature_zero_only=True) is None
    assert plan(question(temperature=0), temperature_zero_only=True) is not None


def test_a_large_question_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    to_thread = asyncio.to_thread

    async def noted(*arguments: Any) -> Any:
        threads.append(arguments)
        return await to_thread(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", noted)
    small = key(question())
    assert threads == []
    assert key(question("x" * 600_000)) != small
    assert len(threads) == 1
