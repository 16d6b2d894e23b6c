"""What the owner may say of the cache."""

from __future__ import annotations

from typing import Any

import pytest

from ai_proxy_mw import Cache, MemoryCache
from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.caching.cacheable import DEFAULT_CACHED
from ai_proxy_mw.caching.options import cache_of


def test_as_it_is_without_a_word() -> None:
    store = MemoryCache()
    cache = cache_of(store)
    assert cache == Cache(store)
    assert cache_of(cache) is cache
    assert (cache.ttl, cache.scope, cache.endpoints, cache.vary) == (
        None, "subject", DEFAULT_CACHED, (),
    )  # fmt: skip


def test_what_is_given_is_put_in_order() -> None:
    def anything(request: Any) -> Any:
        return None

    cache = Cache(
        MemoryCache(),
        ttl=5,
        scope=anything,
        when=anything,
        endpoints=["GET /models", "POST /audio/speech"],
        vary=["user", "X-Tenant", "x-tenant"],
        stale_if_error=3,
    )
    assert (cache.ttl, cache.stale_if_error) == (5.0, 3.0)
    assert cache.endpoints == {"GET /models", "POST /audio/speech"}
    assert cache.vary == ("user", "x-tenant")
    assert Cache(MemoryCache(), ttl=anything).ttl is anything


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ttl", 0),
        ("ttl", -1),
        ("ttl", float("nan")),
        ("ttl", float("inf")),
        ("ttl", True),
        ("ttl", "60"),
        ("scope", "all"),
        ("scope", None),
        ("when", "always"),
        ("endpoints", "GET /models"),
        ("endpoints", ["GET /files"]),
        ("endpoints", None),
        ("endpoints", [[]]),
        ("vary", "user"),
        ("vary", ["a b"]),
        ("vary", [1]),
        ("vary", 7),
        ("temperature_zero_only", 1),
        ("count_hits", None),
        ("max_entry_bytes", 0),
        ("max_entry_bytes", True),
        ("max_entry_bytes", 1.5),
        ("replay", "slow"),
        ("stale_while_revalidate", -1),
        ("stale_if_error", None),
    ],
)
def test_what_is_wrong_is_said(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"Cache\({option}=.*write"):
        Cache(MemoryCache(), **{option: value})


@pytest.mark.parametrize("store", [True, "memory", MemoryCache, object()])
def test_what_is_no_store(store: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"write MemoryCache\(\)"):
        cache_of(store)
