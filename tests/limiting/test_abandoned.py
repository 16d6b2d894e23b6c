"""Callers who leave while it is still asked how much they may."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from ai_proxy_mw import AIProxy, ConfigurationError, Limit, Upstream
from ai_proxy_mw._hook_threads import run_sync
from ai_proxy_mw._http import Ending, Request
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.limiting.limiter import Limiter
from ai_proxy_mw.limiting.tally import Tally
from ai_proxy_mw.stores.local import LocalStorage
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream


class Far(LocalStorage):
    """A store that takes its time."""

    STORAGE_SCHEME = ["async+far"]  # noqa: RUF012 - `limits` declares it so

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        count = await super().incr(key, expiry, amount)
        await self.open.wait()
        return count


def _request() -> Request:
    async def pull() -> tuple[bytes, bool]:
        return b"", True

    request = Request(
        method="POST",
        path="/chat/completions",
        query=b"",
        headers=[(b"content-type", b"application/json")],
        body=RequestBody(pull, declared=None, limit=1),
        client="1.2.3.4",
        request_id="r",
        run_sync=run_sync,
    )
    request.subject = "alice"
    request.endpoint = "POST /chat/completions"
    return request


def test_what_was_taken_for_who_left_is_given_back() -> None:
    limits = (Limit("10", of="concurrent"), Limit("100/hour", of="tokens"))

    async def main() -> None:
        store = Far()
        limiter = Limiter(limits, name="a", storage=store)
        tally = Tally(limiter, _request(), limits)
        for take in (tally.take_early(), tally.take_late(lambda limit: 60)):
            asking = asyncio.ensure_future(take)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        store.open.set()
        await asyncio.sleep(0)
        for _ in range(3):
            await limiter.books.here().leases.aclose()
        standings = await limiter.status("alice")
        assert [standing.remaining for standing in standings] == [10, 100]
        assert limiter.reserved == {}
        await limiter.aclose()

    asyncio.run(main())


def test_two_calls_of_one_caller_are_reserved_together() -> None:
    limit = Limit("100/hour", of="tokens")

    async def main() -> None:
        limiter = Limiter([limit], name="a")
        tallies = [Tally(limiter, _request(), (limit,)) for _ in range(2)]
        for tally in tallies:
            await tally.take_late(lambda limit: 30)
        assert [each.reserved for each in await limiter.status("alice")] == [60]
        tallies[0].settle(lambda limit: 10)
        assert [each.reserved for each in await limiter.status("alice")] == [30]
        tallies[1].settle(lambda limit: 30)
        assert [each.reserved for each in await limiter.status("alice")] == [0]
        await limiter.aclose()

    asyncio.run(main())


def test_a_wrong_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="on_store_failure"):
        Limiter(["1/day"], name="a", on_failure="hope")  # type: ignore[arg-type]


def test_a_fault_of_ours_frees_the_callers_place() -> None:
    class Faulty:
        async def send(self, outbound: Any) -> Any:
            raise RuntimeError("a fault of ours")

        async def aclose(self) -> None:
            """There is nothing to close."""

    async def main() -> None:
        proxy = AIProxy(
            upstream=Upstream(base_url=FAKE_BASE_URL, transport=Faulty()),
            anonymous=True,
            limits=["5 concurrent", "1000 tokens/hour"],
        )
        request = _request()
        response = await proxy.handle(request)
        assert response.status == 400  # it has no body
        request = _request()
        request.path, request.method = "/models", "GET"
        assert (await proxy.handle(request)).status == 500
        await proxy.aclose()
        standings = await proxy.limits.status("1.2.3.4")
        assert [standing.remaining for standing in standings] == [5, 1000]
        await proxy.aclose()

    asyncio.run(main())


def test_a_call_that_is_over_waits_for_no_garbage_collector() -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'

    def alive() -> list[object]:
        # Not isinstance, which wakes the lazy objects that other libraries have lying about.
        return [each for each in gc.get_objects() if type(each) in (Tally, Request)]

    async def call(proxy: AIProxy) -> int:
        request = _request()
        request.body = RequestBody(_once(body), declared=len(body), limit=1000)
        response = await proxy.handle(request)
        async for _ in response.body:
            pass
        await response.body.aclose()
        for observer in response.observers:
            observer.end(Ending.COMPLETE)
        return response.status

    async def main() -> None:
        proxy = AIProxy(
            upstream=Upstream(base_url=FAKE_BASE_URL, transport=FakeUpstream().transport()),
            anonymous=True,
            limits=["5/hour", "5 concurrent", "100000 tokens/hour"],
        )
        gc.collect()
        gc.disable()
        try:
            of_others = alive()
            assert await call(proxy) == 200
            assert [each for each in alive() if each not in of_others] == []
        finally:
            gc.enable()
        await proxy.aclose()

    asyncio.run(main())


def _once(body: bytes) -> Any:
    async def pull() -> tuple[bytes, bool]:
        return body, True

    return pull
