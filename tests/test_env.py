"""The AI_PROXY_* variables are a public contract."""

from __future__ import annotations

from typing import Any

import pytest

from ai_proxy_mw import (
    CORS,
    AIProxy,
    Cache,
    Concurrency,
    ConfigurationError,
    DiskCache,
    Images,
    Limit,
    MemoryCache,
    Models,
    RedisCache,
    Timeouts,
    Upstream,
)
from ai_proxy_mw._env import read

URL = "http://127.0.0.1:1/v1"
OPEN = {"AI_PROXY_UPSTREAM": URL, "AI_PROXY_ANONYMOUS": "1"}


def test_each_variable_becomes_its_argument() -> None:
    options = read(
        {
            "AI_PROXY_UPSTREAM": "https://api.openai.com/v1",
            "AI_PROXY_API_KEY": " sk-up ",
            "AI_PROXY_API_KEYS": "alice=sk-a, bob=sk-b=",
            "AI_PROXY_PREFIX": "/ai/v1",
            "AI_PROXY_MAX_BODY": "64M",
            "AI_PROXY_TIMEOUTS": "connect=5, first_byte=60,idle=120,total=600.5",
            "AI_PROXY_CORS_ORIGINS": "https://app.example, http://localhost:3000",
            "AI_PROXY_CACHE": "off",
            "AI_PROXY_CACHE_TTL": "60",
            "AI_PROXY_LIMITS": "100/minute; 50000 tokens/minute; 5 usd/day; 8 concurrent;",
            "AI_PROXY_LIMITS_STORAGE": "redis://localhost:6379",
            "AI_PROXY_ON_STORE_FAILURE": "deny",
            "AI_PROXY_MAX_CONCURRENT": "100, queue=50,wait=1.5",
            "AI_PROXY_NAME": "shop",
            "AI_PROXY_TRUSTED_PROXIES": "10.0.0.0/8, unix",
            "AI_PROXY_VALIDATE": "1",
            "AI_PROXY_STRICT": "0",
            "AI_PROXY_MODELS": "gpt-4.1*, fast=gpt-4.1-mini",
            "AI_PROXY_IMAGE_URLS": "refuse",
            "HOME": "/",
        },
        {},
    )
    assert options == {
        "upstream": "https://api.openai.com/v1",
        "api_key": "sk-up",
        "api_keys": {"alice": "sk-a", "bob": "sk-b="},
        "prefix": "/ai/v1",
        "max_body": 64 << 20,
        "timeouts": Timeouts(connect=5, first_byte=60, idle=120, total=600.5),
        "limits": (
            Limit("100/minute"),
            Limit("50000/minute", of="tokens"),
            Limit("5/day", of="usd"),
            Limit("8", of="concurrent"),
        ),
        "limits_storage": "redis://localhost:6379",
        "on_store_failure": "deny",
        "max_concurrent": Concurrency(100, queue=50, wait=1.5),
        "name": "shop",
        "trusted_proxies": ["10.0.0.0/8", "unix"],
        "validate": True,
        "strict": False,
        "models": Models(["gpt-4.1*"], aliases={"fast": "gpt-4.1-mini"}),
        "images": Images(urls="refuse"),
        "cache": None,
        "cors": CORS(allow_origins=["https://app.example", "http://localhost:3000"]),
    }


@pytest.mark.parametrize(
    ("value", "kind"),
    [("memory", MemoryCache), ("redis://localhost:6379/1", RedisCache), ("var/cache", DiskCache)],
)
def test_where_answers_are_kept(value: str, kind: type) -> None:
    said = {"AI_PROXY_CACHE": value, "AI_PROXY_CACHE_TTL": "60", "AI_PROXY_CACHE_SCOPE": "shared"}
    cache = read({**OPEN, **said}, {})["cache"]
    assert isinstance(cache, Cache)
    assert isinstance(cache.store, kind)
    assert (cache.ttl, cache.scope) == (60.0, "shared")
    plain = read({**OPEN, "AI_PROXY_CACHE": value}, {})["cache"]
    assert isinstance(plain, Cache)
    assert (plain.ttl, plain.scope) == (None, "subject")


def test_a_cache_in_the_code_goes_before_the_variables() -> None:
    mine = MemoryCache()
    said = {"AI_PROXY_CACHE": "var/cache", "AI_PROXY_CACHE_TTL": "60"}
    assert read({**OPEN, **said}, {"cache": mine})["cache"] is mine


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_PROXY_UPSTREAM", URL)
    monkeypatch.setenv("AI_PROXY_ANONYMOUS", "1")
    assert AIProxy.from_env().upstream.base_url == URL


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("2K", 2048), ("1G", 1 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert read({**OPEN, "AI_PROXY_MAX_BODY": text}, {})["max_body"] == size


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AI_PROXY_UPSTREAM", "api.openai.com"),
        ("AI_PROXY_API_KEY", "sk a"),
        ("AI_PROXY_API_KEYS", "alice"),
        ("AI_PROXY_API_KEYS", "alice=sk-a,"),
        ("AI_PROXY_API_KEYS", "=sk-a"),
        ("AI_PROXY_API_KEYS", "alice=sk-a,alice=sk-b"),
        ("AI_PROXY_API_KEYS", "alice=sk-a,bob=sk-a"),
        ("AI_PROXY_ANONYMOUS", "yes"),
        ("AI_PROXY_PREFIX", "v1"),
        ("AI_PROXY_MAX_BODY", "64MB"),
        ("AI_PROXY_MAX_BODY", "0"),
        ("AI_PROXY_MAX_BODY", "-1"),
        ("AI_PROXY_TIMEOUTS", "connect=soon"),
        ("AI_PROXY_TIMEOUTS", "patience=5"),
        ("AI_PROXY_TIMEOUTS", "connect=5,connect=6"),
        ("AI_PROXY_TIMEOUTS", "connect=-5"),
        ("AI_PROXY_UPSTREAMS", "[]"),
        ("AI_PROXY_LIMITS", "100"),
        ("AI_PROXY_LIMITS", "5 apples/day"),
        ("AI_PROXY_LIMITS_STORAGE", "redis:user:sk-a@host"),
        ("AI_PROXY_LIMITS_STORAGE", "oracle://user:sk-a@host"),
        ("AI_PROXY_ON_STORE_FAILURE", "hope"),
        ("AI_PROXY_MAX_CONCURRENT", "0"),
        ("AI_PROXY_MAX_CONCURRENT", "many"),
        ("AI_PROXY_MAX_CONCURRENT", "queue=5"),
        ("AI_PROXY_MAX_CONCURRENT", "5,limit=6"),
        ("AI_PROXY_MAX_CONCURRENT", "5,patience=6"),
        ("AI_PROXY_MAX_CONCURRENT", "5,wait=nan"),
        ("AI_PROXY_MAX_CONCURRENT", "5,"),
        ("AI_PROXY_TRUSTED_PROXIES", "10.0.0.0/8,somewhere"),
        ("AI_PROXY_CACHE", "memcached://localhost"),
        ("AI_PROXY_CACHE", "redis://user:sk-a@localhost:none"),
        ("AI_PROXY_CACHE_TTL", "60"),
        ("AI_PROXY_CACHE_TTL", "soon"),
        ("AI_PROXY_CACHE_TTL", "-1"),
        ("AI_PROXY_CACHE_TTL", "inf"),
        ("AI_PROXY_CACHE_SCOPE", "shared"),
        ("AI_PROXY_CORS_ORIGINS", "app.example"),
        ("AI_PROXY_CORS_ORIGINS", "https://app.example/"),
        ("AI_PROXY_CORS_ORIGINS", "https://app.example,,http://localhost:3000"),
        ("AI_PROXY_CORS_ORIGINS", "*,https://app.example"),
        ("AI_PROXY_VALIDATE", "no"),
        ("AI_PROXY_STRICT", "2"),
        ("AI_PROXY_MODELS", "gpt-4.1,fast="),
        ("AI_PROXY_IMAGE_URLS", "fetch"),
        ("AI_PROXY_UPSTRAEM", URL),
    ],
)
def test_a_wrong_value_is_refused_with_the_variables_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: ") as caught:
        AIProxy.from_env({**OPEN, name: value})
    assert "sk-a" not in str(caught.value)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="AI_PROXY_UPSTREAM"):
        AIProxy.from_env({"AI_PROXY_ANONYMOUS": "1"})
    for nobody in ("", "0"):
        with pytest.raises(ConfigurationError, match="AI_PROXY_ANONYMOUS=1"):
            AIProxy.from_env({"AI_PROXY_UPSTREAM": URL, "AI_PROXY_ANONYMOUS": nobody})


def test_both_ways_in_the_environment_are_one_too_many() -> None:
    with pytest.raises(ConfigurationError, match="exactly one way"):
        AIProxy.from_env({**OPEN, "AI_PROXY_API_KEYS": "alice=sk-a"})


def test_arguments_go_before_variables() -> None:
    def who(request: object) -> str:
        return "me"

    environ = {**OPEN, "AI_PROXY_API_KEYS": "a=b", "AI_PROXY_PREFIX": "/x", "AI_PROXY_API_KEY": "k"}
    proxy = AIProxy.from_env(environ, identify=who, prefix="/y")
    assert proxy.prefix == "/y"
    assert proxy.upstream.api_key == "k"
    own = Upstream(base_url=URL, api_key="own")
    timed = {**environ, "AI_PROXY_TIMEOUTS": "idle=1"}
    assert AIProxy.from_env(timed, identify=who, upstream=own).upstream is own


def test_a_fake_upstream_needs_no_network() -> None:
    environ: dict[str, Any] = {
        "AI_PROXY_UPSTREAM": "fake",
        "AI_PROXY_ANONYMOUS": "1",
        "AI_PROXY_API_KEY": "k",
        "AI_PROXY_TIMEOUTS": "idle=1",
    }
    upstream = AIProxy.from_env(environ).upstream
    assert upstream.transport is not None
    assert upstream.api_key == "k"
    assert upstream.timeouts.idle == 1
