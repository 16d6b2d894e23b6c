"""The AI_PROXY_* variables are a public contract."""

from __future__ import annotations

import json
from pathlib import Path
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
from ai_proxy_mw._retry import Retry

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
            "AI_PROXY_RETRY": "attempts=2, total=9.5,unsafe=timeout|reset,on=connect|503,"
            "respect_retry_after=0,budget=none",
            "AI_PROXY_FALLBACK": "gpt-4.1=claude-sonnet-4.5 | deepseek-v3.2; other=gpt-4.1;",
            "AI_PROXY_HEALTH_ENDPOINT": "1",
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
        "retry": Retry(
            attempts=2,
            total=9.5,
            unsafe=["timeout", "reset"],
            on=["connect", 503],
            respect_retry_after=False,
            budget=None,
        ),
        "fallback": {"gpt-4.1": ["claude-sonnet-4.5", "deepseek-v3.2"], "other": ["gpt-4.1"]},
        "health_endpoint": True,
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


@pytest.mark.parametrize(
    ("value", "kind"),
    [("1", bool), ("0", bool), ("redis://localhost:6379/1", RedisCache), ("var/stats", DiskCache)],
)
def test_where_calls_are_counted(value: str, kind: type) -> None:
    stats = read({**OPEN, "AI_PROXY_STATS": value}, {})["stats"]
    assert isinstance(stats, kind)
    if kind is bool:
        assert stats is (value == "1")
    assert read({**OPEN, "AI_PROXY_ACCESS_LOG": "0"}, {})["access_log"] is False


def test_a_word_is_no_place_to_count() -> None:
    with pytest.raises(ConfigurationError, match="AI_PROXY_STATS: write 1, 0, a directory like"):
        read({**OPEN, "AI_PROXY_STATS": "disk"}, {})


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
        ("AI_PROXY_RETRY", "attempts=0"),
        ("AI_PROXY_RETRY", "attempts=many"),
        ("AI_PROXY_RETRY", "attempts=2,attempts=3"),
        ("AI_PROXY_RETRY", "patience=3"),
        ("AI_PROXY_RETRY", "unsafe=connect"),
        ("AI_PROXY_RETRY", "on=200"),
        ("AI_PROXY_RETRY", "respect_retry_after=yes"),
        ("AI_PROXY_RETRY", "budget=all"),
        ("AI_PROXY_FALLBACK", "gpt-4.1"),
        ("AI_PROXY_FALLBACK", "gpt-4.1="),
        ("AI_PROXY_FALLBACK", "=gpt-4.1"),
        ("AI_PROXY_FALLBACK", "a=b|"),
        ("AI_PROXY_FALLBACK", "a=b;a=c"),
        ("AI_PROXY_HEALTH_ENDPOINT", "yes"),
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


ANYBODY = {"AI_PROXY_ANONYMOUS": "1"}
SEVERAL: list[dict[str, Any]] = [
    {
        "name": "openai",
        "base_url": "https://api.openai.com/v1",
        "api_key_env": "OPENAI_KEY",
        "models": ["gpt-*"],
        "priority": 0,
        "weight": 1.5,
        "headers": {"OpenAI-Organization": "org"},
        "idempotency_key": True,
        "stream_usage": False,
    },
    {
        "name": "azure",
        "base_url": "https://x.example/{model}",
        "keys_env": "AZURE_KEYS",
        "auth": "api-key",
        "models": {"fast": "gpt-4.1-mini"},
        "endpoints": ["POST /chat/completions"],
        "query": {"api-version": "2024-10-21"},
        "max_concurrent": 10,
        "timeouts": {"connect": 1, "idle": 2.5},
    },
    {"name": "local", "base_url": "http://127.0.0.1:11434/v1", "api_key": "sk-a"},
]
KEYS = {"OPENAI_KEY": " sk-a1 ", "AZURE_KEYS": "sk-a2, sk-a3"}


def test_several_upstreams(tmp_path: Path) -> None:
    path = tmp_path / "upstreams.json"
    path.write_text(json.dumps(SEVERAL))
    for value in (json.dumps(SEVERAL), f"@{path}"):
        proxy = AIProxy.from_env({**ANYBODY, **KEYS, "AI_PROXY_UPSTREAMS": value})
        assert "sk-a" not in repr(proxy)
        one, two, three = proxy.upstreams
        assert one == Upstream(
            name="openai",
            base_url="https://api.openai.com/v1",
            api_key="sk-a1",
            models=["gpt-*"],
            weight=1.5,
            headers={"OpenAI-Organization": "org"},
            idempotency_key=True,
            stream_usage=False,
        )
        assert two.keys == ("sk-a2", "sk-a3")
        assert two.timeouts == Timeouts(connect=1, idle=2.5)
        assert (two.names, two.max_concurrent) == ({"fast": "gpt-4.1-mini"}, Concurrency(10))
        assert (three.keys, three.models) == (("sk-a",), None)


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([], "JSON array"),
        ({"base_url": URL}, "JSON array"),
        ([URL], "item 1 is no object"),
        ([{"name": "a"}], "item 1: base_url is missing"),
        ([{"base_url": URL}, {"base_url": URL}], "name of its own"),
        ([{"base_url": URL, "api_kye": "sk-a"}], "item 1: there is no member 'api_kye'"),
        ([{"base_url": URL, "api_key": 7}], "item 1: api_key: write a text"),
        ([{"base_url": URL, "api_key": "sk-a b"}], "item 1: api_key: a key is visible"),
        ([{"base_url": URL, "api_key": "sk-a", "keys_env": "K"}], "api_key or keys_env, not both"),
        ([{"base_url": URL, "api_key_env": "sk-a"}], "api_key_env: the variable .* is not set"),
        ([{"base_url": URL, "keys_env": "TWICE"}], "there twice"),
        ([{"base_url": URL, "auth": "sk-a"}], "auth: write one of"),
        ([{"base_url": URL, "weight": True}], "weight: write a number"),
        ([{"base_url": URL, "priority": 1.5}], "priority: write a whole number"),
        ([{"base_url": URL, "models": "gpt-*"}], "models: write a list or an object"),
        ([{"base_url": URL, "models": [7]}], "models: 7"),
        ([{"base_url": URL, "headers": {"x-key": 7}}], "headers: write texts only"),
        ([{"base_url": URL, "headers": {"x-key": "sk-a\n"}}], "cannot be sent as a header"),
        ([{"base_url": URL, "timeouts": {"patience": 1}}], "timeouts: there is no 'patience'"),
        ([{"base_url": URL, "timeouts": {"idle": "1"}}], "write a number of seconds"),
        ([{"base_url": "https://user:sk-a@host/v1"}], "must not hold a user"),
    ],
)
def test_upstreams_that_are_wrong_are_refused(items: Any, told: str) -> None:
    environ = {**ANYBODY, "AI_PROXY_UPSTREAMS": json.dumps(items), "TWICE": "sk-a,sk-a"}
    with pytest.raises(ConfigurationError, match=f"^AI_PROXY_UPSTREAMS: .*{told}") as caught:
        AIProxy.from_env(environ)
    assert "sk-a" not in str(caught.value)


@pytest.mark.parametrize("value", ["[", '[{"api_key": "sk-a}]', "@/nowhere/at/all", "@\0", "@"])
def test_upstreams_that_cannot_be_read_are_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^AI_PROXY_UPSTREAMS: ") as caught:
        AIProxy.from_env({**ANYBODY, "AI_PROXY_UPSTREAMS": value})
    assert "sk-a" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("AI_PROXY_UPSTREAM", URL), ("AI_PROXY_API_KEY", "k"), ("AI_PROXY_TIMEOUTS", "idle=1")],
)
def test_several_upstreams_have_each_their_own(name: str, value: str) -> None:
    said = {**ANYBODY, "AI_PROXY_UPSTREAMS": json.dumps([{"base_url": URL}]), name: value}
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        AIProxy.from_env(said)


def test_upstreams_in_the_code_go_before_the_variables() -> None:
    own = [Upstream(base_url=URL)]
    several = {**ANYBODY, "AI_PROXY_UPSTREAMS": json.dumps([{"base_url": "http://other/v1"}])}
    one = {**OPEN, "AI_PROXY_API_KEY": "k", "AI_PROXY_TIMEOUTS": "idle=1"}
    for environ in (several, one):
        assert AIProxy.from_env(environ, upstreams=own).upstreams == tuple(own)
        assert AIProxy.from_env(environ, upstream=own[0]).upstreams == tuple(own)
    kept = AIProxy.from_env(one, upstream="http://other/v1").upstream
    assert (kept.base_url, kept.api_key) == ("http://other/v1", "k")
