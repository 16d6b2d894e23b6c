"""A thousand calls of all kinds, and what the fake upstream knows of them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx

from ai_proxy_mw import AIProxy, MemoryCache, Price, Prices, Record, Retry, Upstream
from ai_proxy_mw.accounting.estimate import Estimate
from ai_proxy_mw.schema.call import Call
from ai_proxy_mw.testing import FakeUpstream, SeenRequest
from ai_proxy_mw.testing._reply import count_tokens

WORDS = ["one", "two", "six", "ten", "one", "two", "six", "end"]
"""No longer than a token is taken to be."""
LEFT_AFTER = 3
"""Words of those that a caller who leaves hears."""

PRICES = Prices({"fake-*": Price(2.0, 8.0)}, default=False)
"""Micro-dollars for a token in, and for one out."""

KINDS = ("plain", "again", "stream", "stream-again", "left", "failed", "retried", "cut", "refused")


def asked(call: Call) -> Estimate:
    """The fake's own way to count what goes in."""
    said = call.get("messages") or call.get("prompt") or call.get("input")
    return Estimate(count_tokens(said), len(WORDS))


def mixed_proxy(base_url: str, **options: Any) -> AIProxy:
    return AIProxy(
        upstream=Upstream(base_url=base_url, stream_usage=True),
        identify=_by_header,
        prices=PRICES,
        estimate=asked,
        cache=MemoryCache(),
        retry=Retry(attempts=9, backoff=0.001),
        circuit=False,
        **options,
    )


def _by_header(request: Any) -> str | None:
    name: str | None = request.headers.get("x-user")
    return name


class Sums(NamedTuple):
    calls: int
    """Sent upstream."""
    input_tokens: int
    output_tokens: int

    @property
    def cost(self) -> int:
        return 2 * self.input_tokens + 8 * self.output_tokens


def ledger(requests: Sequence[SeenRequest]) -> Sums:
    """What the upstream has been asked, and could send a bill for."""
    used = [_used(each) for each in requests]
    return Sums(len(used), sum(one for one, _ in used), sum(other for _, other in used))


def _used(seen: SeenRequest) -> tuple[int, int]:
    if seen.status is not None and seen.status >= 400:
        return 0, 0
    body = seen.json()
    went_in = count_tokens(body.get("messages") or body.get("prompt") or body.get("input"))
    if seen.path.endswith("/embeddings"):
        return went_in, 0
    if seen.outcome == "failed":
        return went_in, 0  # it may have worked, and nobody was told
    if seen.outcome == "disconnected":
        return went_in, LEFT_AFTER
    return went_in, len(WORDS)


def sums(records: Sequence[Record]) -> Sums:
    return Sums(
        sum(each.attempts for each in records),
        sum(each.input_tokens for each in records),
        sum(each.output_tokens for each in records),
    )


def prepare(fake: FakeUpstream, number: int) -> None:
    """For so many calls of each kind."""
    fake.words = WORDS
    fake.stall(times=number, at=f"chunk:{LEFT_AFTER}", path="/completions")
    fake.fail(status=400, times=number, path="/messages")
    fake.disconnect(times=number, after="request", path="/responses")
    # As many as the retry budget has tokens for.
    fake.fail(status=500, times=8, path="/embeddings", headers={"retry-after-ms": "1"})


async def ask_all(url: str, number: int, *, at_once: int = 16) -> Counter[str]:
    """Ask `number` calls of each kind, in turns; how many of each had the answer they should."""
    right: Counter[str] = Counter()
    gate = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(
        base_url=f"{url}/v1", timeout=60, limits=httpx.Limits(max_connections=None)
    ) as client:

        async def one(kind: str, index: int) -> None:
            async with gate:
                is_right = await _ASK[kind](client, index)
                right[kind] += is_right

        # What is asked again comes behind what it repeats.
        for kinds in (("plain", "stream", "left", "failed"), KINDS[1:2] + KINDS[3:4] + KINDS[6:]):
            async with asyncio.TaskGroup() as group:
                for index in range(number):
                    for kind in kinds:
                        group.create_task(one(kind, index))
    return right


async def _chat(client: httpx.AsyncClient, index: int, *, stream: bool) -> bool:
    answer = await client.post(
        "/chat/completions",
        json={
            "model": "fake-1",
            "stream": stream,
            "messages": [
                {"role": "user", "content": f"Count to eight {'again ' * (index % 7)}{index}"}
            ],
        },
        headers={"x-user": "ann"},
    )
    return answer.status_code == 200 and "end" in answer.text


async def _plain(client: httpx.AsyncClient, index: int) -> bool:
    return await _chat(client, index, stream=False)


async def _stream(client: httpx.AsyncClient, index: int) -> bool:
    return await _chat(client, index, stream=True)


async def _left(client: httpx.AsyncClient, index: int) -> bool:
    body = {"model": "fake-1", "stream": True, "prompt": f"Count slowly {index}"}
    heard = 0
    async with client.stream(
        "POST", "/completions", json=body, headers={"x-user": "bob"}
    ) as answer:
        async for line in answer.aiter_lines():
            heard += line.startswith("data: {")
            if heard == LEFT_AFTER:
                return True
    return False


async def _post(client: httpx.AsyncClient, path: str, body: Any, status: int) -> bool:
    answer = await client.post(path, json=body, headers={"x-user": "eve"})
    return answer.status_code == status and (status < 400 or "error" in json.loads(answer.content))


async def _failed(client: httpx.AsyncClient, index: int) -> bool:
    said = [{"role": "user", "content": f"No {index}"}]
    return await _post(
        client, "/messages", {"model": "fake-1", "max_tokens": 9, "messages": said}, 400
    )


async def _retried(client: httpx.AsyncClient, index: int) -> bool:
    return await _post(client, "/embeddings", {"model": "fake-2", "input": f"number {index}"}, 200)


async def _cut(client: httpx.AsyncClient, index: int) -> bool:
    return await _post(client, "/responses", {"model": "fake-2", "input": f"gone {index}"}, 502)


async def _refused(client: httpx.AsyncClient, index: int) -> bool:
    return await _post(client, "/chat/completions", {"model": "fake-1", "messages": index}, 400)


_ASK = {
    "plain": _plain,
    "again": _plain,
    "stream": _stream,
    "stream-again": _stream,
    "left": _left,
    "failed": _failed,
    "retried": _retried,
    "cut": _cut,
    "refused": _refused,
}
