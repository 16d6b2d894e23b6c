"""Two hundred calls at once against a budget of which ten fit, through the ASGI door."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from ai_proxy_mw import AIProxy, AIProxyMiddleware, Limit, Upstream
from ai_proxy_mw.accounting.costs import Bill, Costs
from ai_proxy_mw.accounting.estimate import Estimate, estimate
from ai_proxy_mw.accounting.prices import Price, Prices
from ai_proxy_mw.accounting.readers import reader_for
from ai_proxy_mw.schema.call import Call
from ai_proxy_mw.stores.local import LocalStorage
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.limiting.borders import calm_rate
from tests.servers import serve_asgi

CHAT = "POST /chat/completions"
CALLS = 200
FIT = 10
MODEL = "fake-1"
PRICES = Prices({MODEL: Price(2.00, 8.00)}, default=False)  # micro-dollars a token, in and out
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
KINDS = ["tokens", "usd"]

Ask = Callable[[httpx.AsyncClient, str, dict[str, Any]], Coroutine[Any, Any, tuple[int, bytes]]]


def question(**more: Any) -> dict[str, Any]:
    content = "Count, please. " * 4
    body = {"model": MODEL, "max_tokens": 40, "messages": [{"role": "user", "content": content}]}
    return {**body, **more}


def too_little(call: Call) -> Estimate:
    """An estimate that is wrong by some tokens for each call."""
    return Estimate(estimate(call).input_tokens // 2, len(WORDS) // 2)


class Counts(LocalStorage):
    """Knows what is counted in all."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        count = await super().incr(key, expiry, amount)
        self.total += amount
        return count

    async def decr(self, key: str, amount: int = 1) -> int:
        before = await self.get(key)
        count = await super().decr(key, amount)
        self.total += count - before
        return count


@dataclass
class Budget:
    """A proxy with a budget that ten of the calls fill, and what is counted of it."""

    url: str
    fake: FakeUpstream
    proxy: AIProxy
    counts: Counts
    limit: Limit
    bill: Bill

    async def settled(self, expected: int) -> int:
        """What is counted when all is settled, which happens behind the answers, in a moment."""
        deadline = time.monotonic() + 30
        while self.proxy.limits.reserved or self.counts.total != expected:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.01)
        return self.counts.total


@contextmanager
def _budget(of: Any, body: dict[str, Any], estimator: Any = None) -> Iterator[Budget]:
    call = Call(CHAT, json.dumps(body).encode())
    bill = Costs(PRICES, estimator).bill(_Asked(call))  # type: ignore[arg-type]
    one = bill.expected(Limit("1/day", of=of))
    amount = FIT * one + one - 1
    rate = calm_rate(amount if of == "tokens" else f"{amount / 1_000_000:.6f}")
    limit = Limit(rate, of=of)
    assert limit.amount == amount
    fake, counts = FakeUpstream(words=WORDS), Counts()
    proxy = AIProxy(
        upstream=Upstream(base_url=FAKE_BASE_URL, transport=fake.transport()),
        anonymous=True,
        limits=[limit],
        limits_storage=counts,
        on_store_failure="deny",
        prices=PRICES,
        estimate=estimator,
    )
    with serve_asgi(AIProxyMiddleware(None, proxy=proxy)) as url:
        yield Budget(url, fake, proxy, counts, limit, bill)


class _Asked:
    endpoint = CHAT

    def __init__(self, call: Call) -> None:
        self.call = call


async def _whole(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> tuple[int, bytes]:
    answer = await client.post(url, json=body)
    return answer.status_code, answer.content


async def _nothing() -> None:
    pass


async def _hammer(
    budget: Budget, body: dict[str, Any], ask: Ask, then: Callable[[], Awaitable[None]] = _nothing
) -> list[bytes]:
    """All calls at once; the answers of those that were let in. The upstream is held meanwhile."""
    url = f"{budget.url}/v1/chat/completions"
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        with budget.fake.hold("headers") as gate:
            calls = [asyncio.create_task(ask(client, url, body)) for _ in range(CALLS)]
            await asyncio.to_thread(gate.wait_until_held, FIT, 60)
            refused = 0
            for call in asyncio.as_completed(calls):
                status, _ = await call
                refused += status == 429
                if refused == CALLS - FIT:
                    break
            # None that is under way has ended, so this is all that may be reserved at once.
            assert gate.waiting == FIT == len(budget.fake.requests)
            assert budget.counts.total == FIT * budget.bill.expected(budget.limit)
            assert budget.counts.total <= budget.limit.amount
        await then()
        answers = await asyncio.gather(*calls)
    assert Counter(status for status, _ in answers) == {200: FIT, 429: CALLS - FIT}
    return [answer for status, answer in answers if status == 200]


def _used(of: str, answer: bytes) -> int:
    """What an answer says was used, in the limit's units."""
    if answer.startswith(b"data:"):
        answer = [line[6:] for line in answer.splitlines() if line.startswith(b"data: {")][-1]
    usage = json.loads(answer)["usage"]
    tokens = usage["prompt_tokens"], usage["completion_tokens"]
    return sum(tokens) if of == "tokens" else 2 * tokens[0] + 8 * tokens[1]


async def _check(budget: Budget, used: int) -> None:
    """What remains is what was not used, exactly; and it can be used."""
    assert await budget.settled(used) == used
    [standing] = await asyncio.to_thread(budget.proxy.limits.status_sync, "127.0.0.1")
    assert standing.remaining == max(0, budget.limit.amount - used)
    assert standing.reserved == 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("of", KINDS)
def test_ten_of_two_hundred_fit(of: str, stream: bool) -> None:
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    body = question(**more)

    async def main(budget: Budget) -> None:
        answers = await _hammer(budget, body, _whole)
        used = sum(_used(of, answer) for answer in answers)
        assert 0 < used < budget.limit.amount
        await _check(budget, used)

    with _budget(of, body) as budget:
        asyncio.run(main(budget))


@pytest.mark.parametrize("of", KINDS)
def test_what_was_used_beyond_the_estimate_is_charged(of: str) -> None:
    body = question()

    async def main(budget: Budget) -> None:
        answers = await _hammer(budget, body, _whole)
        used = [_used(of, answer) for answer in answers]
        error = max(used) - budget.bill.expected(budget.limit)
        assert error > 0
        # No more than the budget and, for each that was under way, the error of its estimate.
        assert budget.limit.amount < sum(used) <= budget.limit.amount + FIT * error
        await _check(budget, sum(used))
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{budget.url}/v1/chat/completions", json=body)
        assert answer.status_code == 429

    with _budget(of, body, too_little) as budget:
        asyncio.run(main(budget))


EVENTS = 3


async def _three_events(
    client: httpx.AsyncClient, url: str, body: dict[str, Any]
) -> tuple[int, bytes]:
    """Reads so much of a stream, and leaves."""
    received = b""
    async with client.stream("POST", url, json=body) as answer:
        async for piece in answer.aiter_raw():
            received += piece
            if received.count(b"\n\n") == EVENTS:
                break
    return answer.status_code, received


@pytest.mark.parametrize("of", KINDS)
def test_streams_that_callers_leave_cost_what_came_of_them(of: Any) -> None:
    body = question(stream=True, stream_options={"include_usage": True})

    async def main(budget: Budget) -> None:
        with budget.fake.hold() as chunks:

            async def let_out_some_events() -> None:
                for _ in range(EVENTS):
                    await asyncio.to_thread(chunks.wait_until_held, FIT, 60)
                    chunks.release(FIT)

            received = await _hammer(budget, body, _three_events, let_out_some_events)
            await asyncio.to_thread(budget.fake.wait_for_disconnect, 60, n=FIT)
            sent = [seen.chunks_sent for seen in budget.fake.requests]
            assert sent == [EVENTS] * FIT
            used = sum(_estimated(budget, answer) for answer in received)
            assert 0 < used < budget.limit.amount
            await _check(budget, used)

    with _budget(of, body) as budget:
        asyncio.run(main(budget))


def _estimated(budget: Budget, received: bytes) -> int:
    """What is to be settled for these bytes of a stream that was left."""
    reader = reader_for(CHAT, 200, "text/event-stream", None)
    reader.chunk(received)
    usage = reader.usage()
    assert usage is not None
    assert not usage.measured
    assert usage.output_tokens > 0
    return budget.bill.amount(budget.limit, budget.bill.used(usage))
