"""Lists of models are merged, and their upstreams are waited for so long."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ai_proxy_mw import AIProxy, Upstream
from ai_proxy_mw._errors import UpstreamDisconnected, UpstreamTimeout
from ai_proxy_mw._http import Request
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.routing.catalogue import Catalogue
from ai_proxy_mw.routing.lane import Provider
from ai_proxy_mw.routing.listing import Entry, entries_of, shown
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream


def _provider(**said: Any) -> Provider:
    upstream = Upstream(base_url=FAKE_BASE_URL, **said)
    return Provider(upstream, FakeUpstream().transport(), None)


def test_one_entry_may_have_several_names() -> None:
    provider = _provider(models={"a": "real", "b": "real", "other": "else", "same": "same"})
    found = shown(provider, entries_of(b'[{"id":"real"},{"id":"same","n":1.0},{"id":"x"}]'))
    assert [(each.id, bytes(memoryview(each.raw))) for each in found] == [
        ("a", b'{"id":"a"}'),
        ("b", b'{"id":"b"}'),
        ("same", b'{"id":"same","n":1.0}'),
    ]


def test_what_is_too_deep_to_be_renamed_is_left_out() -> None:
    deep = msgspec.Raw(b'{"id":"real","x":' + b"[" * 9999 + b"]" * 9999 + b"}")
    assert list(shown(_provider(models={"a": "real"}), [Entry("real", deep)])) == []


def test_nobody_is_waited_for_longer() -> None:
    fake, slow = FakeUpstream(), FakeUpstream()
    slow.stall()
    upstreams = [
        Upstream(base_url=FAKE_BASE_URL, name=name, transport=each.transport())
        for name, each in (("slow", slow), ("fake", fake))
    ]

    async def main() -> None:
        async with AIProxy(upstreams=upstreams, anonymous=True) as proxy:
            ways = proxy._ways
            assert ways.house is not None
            catalogue = Catalogue(ways.router, ways.house.send, patience=0.05)
            heard = await catalogue.ask(_request())
            assert isinstance(heard[0].failure, UpstreamTimeout)
            assert [each.id for each in heard[1].entries] == ["fake-1", "fake-2"]
            assert [lane.in_flight for lane in ways.lanes] == [0, 0]

    asyncio.run(main())
    slow.wait_until_quiet()


def test_a_list_that_breaks_off_is_a_failure_of_its_lane() -> None:
    fake = FakeUpstream()
    fake.disconnect(after="chunk:1", times=3)
    upstream = Upstream(base_url=FAKE_BASE_URL, transport=fake.transport(), models=["x"])

    async def main() -> None:
        async with AIProxy(upstream=upstream, anonymous=True) as proxy:
            ways = proxy._ways
            heard = await ways.catalogue.ask(_request())
            assert isinstance(heard[0].failure, UpstreamDisconnected)
            assert ways.lanes[0].breaker.failures == 1
            assert ways.lanes[0].in_flight == 0

    asyncio.run(main())


def _request() -> Request:
    async def nothing() -> tuple[bytes, bool]:
        raise AssertionError

    async def run_sync(function: Any) -> Any:
        return function()

    return Request(
        method="GET",
        path="/models",
        query=b"",
        headers=[],
        body=RequestBody(nothing, declared=0, limit=1, empty=True),
        client=None,
        request_id="r",
        run_sync=run_sync,
    )
