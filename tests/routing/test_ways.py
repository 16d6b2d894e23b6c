"""The ways out of the house, from the arguments of AIProxy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ai_proxy_mw import AIProxy, Circuit, ConfigurationError, DiskCache, Retry, Upstream
from ai_proxy_mw._ways import Ways
from ai_proxy_mw.routing.shared import SharedBreakers
from tests.routing.scripted import Script

A = Upstream(name="a", base_url="http://a.test/v1", api_key="key-a")


def ways(*upstreams: Upstream, **options: Any) -> Ways:
    return AIProxy(upstreams=upstreams, anonymous=True, **options)._ways


def one(**options: Any) -> Upstream:
    return Upstream(**{"name": "a", "base_url": "http://a.test/v1", **options})


def test_one_upstream_is_one_way() -> None:
    found = ways(A)
    assert found.house is None
    assert found.models_behind("m") == (("m", "m"),)
    asyncio.run(found.stop_sharing())


@pytest.mark.parametrize(
    "options",
    [
        {"retry": Retry()},
        {"fallback": {"m": ["n"]}},
        {"circuit": Circuit()},
        {"hedge_after": 1},
        {"route": lambda request: None},
        {"deadline": 2.5},
        {"deadline": lambda request: 2.5},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_makes_it_more_than_one(options: dict[str, Any]) -> None:
    assert ways(A, **options).house is not None
    assert ways(A, circuit=False).house is None


@pytest.mark.parametrize(
    "terms",
    [
        {"models": ["m"]},
        {"endpoints": {"POST /embeddings"}},
        {"max_concurrent": 3},
        {"idempotency_key": True},
        {"base_url": "http://a.test/{model}"},
        {"keys": ["k-1", "k-2"]},
    ],
    ids=lambda given: next(iter(given)),
)
def test_terms_of_an_upstream_make_it_more_than_one(terms: dict[str, Any]) -> None:
    assert ways(one(**terms)).house is not None


def test_circuits_are_shared_where_there_is_a_store(tmp_path: Path) -> None:
    two = (A, one(name="b"))
    assert shared(ways(*two)) is None
    assert shared(ways(*two, limits_storage="memory://")) is None
    storage = f"disk://{tmp_path}/limits"
    assert shared(ways(*two, limits_storage=storage, circuit=False)) is None
    found = ways(*two, limits_storage=storage)
    assert shared(found) is not None
    asyncio.run(found.stop_sharing())
    assert shared(ways(*two, cache=DiskCache(tmp_path / "cache"))) is not None


def shared(found: Ways) -> SharedBreakers | None:
    assert found.house is not None
    return found.house.shared


def test_each_key_is_a_lane_with_its_part_of_the_weight() -> None:
    found = ways(one(keys=["k-1", "k-2"], weight=3, max_concurrent=5), one(name="b"))
    assert [(lane.name, lane.weight) for lane in found.lanes] == [
        ("a#1", 1.5),
        ("a#2", 1.5),
        ("b", 1),
    ]
    first, second, other = found.lanes
    assert first.provider is second.provider is not other.provider
    assert first.provider.gate is not None
    assert other.provider.gate is None
    assert found.models_behind("m") == (("m", "m"),)


@pytest.mark.parametrize(
    ("retry", "attempts"), [(None, 3), (Retry(attempts=5), 5), (Retry(budget=None), 3)]
)
def test_how_often_it_is_asked(retry: Retry | None, attempts: int) -> None:
    house = ways(A, one(name="b"), retry=retry).house
    assert house is not None
    assert house.attempts == attempts
    assert (house.budget is None) == (retry is not None and retry.budget is None)
    alone = ways(one(models=["m"])).house
    assert alone is not None
    assert alone.attempts == 1


def test_who_may_answer_tells_accounts_apart() -> None:
    plain = ways(A).accounts
    assert plain == ways(A).accounts
    others = [
        one(api_key="key-b"),
        one(api_key="key-a", query={"api-version": "1"}),
        one(api_key="key-a", headers={"OpenAI-Organization": "o"}),
        one(api_key="key-a", base_url="http://b.test/v1"),
        one(),
    ]
    assert len({plain, *(ways(each).accounts for each in others)}) == 6
    assert ways(one(api_key="key-a", headers={"x-host": "h"})).accounts == plain


def test_each_transport_is_closed_once() -> None:
    script = Script()
    found = ways(one(keys=["k-1", "k-2"], transport=script), one(name="b"))
    asyncio.run(found.aclose())
    assert script.closed == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"retry": 3}, "write Retry"),
        ({"circuit": True}, "write Circuit"),
        ({"route": "a"}, "a function"),
        ({"hedge_after": 0}, "seconds above 0"),
        ({"hedge_after": True}, "seconds above 0"),
        ({"hedge_after": lambda request: 1}, "seconds above 0"),
        ({"deadline": "5"}, "seconds above 0"),
        ({"deadline": float("inf")}, "seconds above 0"),
    ],
)
def test_a_wrong_argument_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ways(A, **options)
