"""`AI_PROXY_*` variables as arguments of AIProxy. Their names and forms are a public contract."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast, get_args

from ai_proxy_mw._api_keys import ApiKeys
from ai_proxy_mw._clients import TrustedProxies
from ai_proxy_mw._concurrency import Concurrency
from ai_proxy_mw._config import Timeouts, Upstream
from ai_proxy_mw._cors import CORS
from ai_proxy_mw._env_upstreams import each_once, fallback, retry, upstreams
from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._limits import Limit, limits_of
from ai_proxy_mw._media import Images, Urls
from ai_proxy_mw._models import Models
from ai_proxy_mw._paths import check_prefix
from ai_proxy_mw.caching.options import Cache
from ai_proxy_mw.limiting.books import Books
from ai_proxy_mw.stores.disk_cache import DiskCache
from ai_proxy_mw.stores.memory_cache import MemoryCache
from ai_proxy_mw.stores.redis_cache import RedisCache

if TYPE_CHECKING:
    from ai_proxy_mw._proxy import ProxyOptions
    from ai_proxy_mw.stores.base import CacheStore

_SEVERAL = "AI_PROXY_UPSTREAMS"

_FAKE_PACE = 0.05  # seconds between two events, so that a stream is seen to be one
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def read(environ: Mapping[str, str] | None, options: ProxyOptions) -> ProxyOptions:
    """The options that the variables say, overlaid with those given.

    An empty variable counts as unset. Raises ConfigurationError with the variable's name.
    """
    variables = os.environ if environ is None else environ
    values = {name: value.strip() for name, value in variables.items() if value.strip()}
    _refuse_unknown(values)
    found: dict[str, Any] = {}
    for name, (option, parse) in _VARIABLES.items():
        if name in values and option not in options:
            found[option] = _parsed(name, values[name], parse)
    if _SEVERAL in values and "upstreams" not in options:
        found["upstreams"] = _parsed(_SEVERAL, values[_SEVERAL], partial(upstreams, environ=values))
    if any(way in options for way in ("identify", "api_keys", "anonymous")):
        found.pop("api_keys", None)
        found.pop("anonymous", None)
    _settle_upstreams(found, options)
    _put_cache_together(found, options)
    found.update(options)
    _require(found)
    if found.get("upstream") == "fake":
        found["upstream"] = _fake(found)
    return cast("ProxyOptions", found)


def _refuse_unknown(values: Mapping[str, str]) -> None:
    for name in sorted(values):
        if name.startswith("AI_PROXY_") and name not in _VARIABLES and name != _SEVERAL:
            raise ConfigurationError(f"{name}: there is no such variable")


def _settle_upstreams(found: dict[str, Any], options: ProxyOptions) -> None:
    """Those in the code go before those in variables, one and several alike."""
    if "upstream" in options or "upstreams" in options:
        found.pop("upstream", None)
        found.pop("upstreams", None)
        if "upstreams" in options or isinstance(options["upstream"], Upstream):
            found.pop("api_key", None)
            found.pop("timeouts", None)
    elif "upstreams" in found:
        for name in ("AI_PROXY_UPSTREAM", "AI_PROXY_API_KEY", "AI_PROXY_TIMEOUTS"):
            if _VARIABLES[name][0] in found:
                raise ConfigurationError(f"{name}: say it in AI_PROXY_UPSTREAMS, for each of them")


def _require(found: Mapping[str, Any]) -> None:
    if "upstream" not in found and "upstreams" not in found:
        raise ConfigurationError("AI_PROXY_UPSTREAM: set the upstream's base URL, or 'fake'")
    if not any(found.get(way) for way in ("identify", "api_keys", "anonymous")):
        raise ConfigurationError(
            "AI_PROXY_API_KEYS: say who may call with 'subject=key,…' here, with "
            "AI_PROXY_ANONYMOUS=1, or with identify= in the code"
        )


def _parsed(name: str, value: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _upstream(value: str) -> str:
    return value if value == "fake" else Upstream(base_url=value).base_url


def _api_key(value: str) -> str:
    if not re.fullmatch(r"[!-~]+", value):
        raise ConfigurationError("a key is visible ASCII without spaces")
    return value


def _api_keys(value: str) -> dict[str, str]:
    keys: dict[str, str] = {}
    for position, item in enumerate(value.split(","), 1):
        subject, separator, key = (part.strip() for part in item.partition("="))
        if not separator or not subject or not key:
            # The item is not shown: it may be a key.
            raise ConfigurationError(f"item {position} is not of the form subject=key")
        if subject in keys:
            raise ConfigurationError(f"{subject!r} is there twice")
        keys[subject] = key
    ApiKeys(keys)
    return keys


def _flag(meaning: str) -> Callable[[str], bool]:
    def parse(value: str) -> bool:
        if value not in ("0", "1"):
            raise ConfigurationError(f"write 1 to {meaning}, or 0")
        return value == "1"

    return parse


def _models(value: str) -> Models:
    allowed: list[str] = []
    aliases: dict[str, str] = {}
    for item in value.split(","):
        name, separator, model = (part.strip() for part in item.partition("="))
        if separator:
            aliases[name] = model
        else:
            allowed.append(name)
    return Models(allowed or None, aliases=aliases)


def _image_urls(value: str) -> Images:
    return Images(urls=cast("Urls", _choice(*get_args(Urls))(value)))


def _size(value: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})([KMG]?)", value)
    if match is None or not int(match[1]):
        raise ConfigurationError(f"{value!r}: write a number of bytes like 64M")
    return int(match[1]) * _UNITS[match[2]]


def _timeouts(value: str) -> Timeouts:
    readers = dict.fromkeys(Timeouts.__slots__, float)
    return Timeouts(**each_once(value, readers, lambda name: f"write seconds, like {name}=5"))


def _concurrency(value: str) -> Concurrency:
    limit, *more = (item.strip() for item in value.split(","))
    said: dict[str, Any] = {}
    for item in [f"limit={limit}", *more]:
        name, _, number = (part.strip() for part in item.partition("="))
        kind = _CONCURRENCY.get(name)
        if kind is None or name in said:
            raise ConfigurationError(f"{item!r}: write a number like 100, or 100,queue=50,wait=1")
        try:
            said[name] = kind(number)
        except ValueError:
            raise ConfigurationError(f"{number!r}: write a number, as in 100,wait=1") from None
    return Concurrency(**said)


def _cors(value: str) -> CORS:
    return CORS(allow_origins=[origin.strip() for origin in value.split(",")])


def _networks(value: str) -> list[str]:
    networks = [network.strip() for network in value.split(",")]
    TrustedProxies(networks)
    return networks


def _limits(value: str) -> tuple[Limit, ...]:
    return limits_of([value.strip(" ;,|")])


def _storage(value: str) -> str:
    Books(value)
    return value


def _cache_store(value: str) -> CacheStore | None:
    """`off`, `memory`, a directory, or the URL of a Redis."""
    if value == "off":
        return None
    if value == "memory":
        return MemoryCache()
    if "://" in value:
        return RedisCache(value)
    return DiskCache(value)


def _stats(value: str) -> CacheStore | bool:
    """`1` or `0`, or where processes tell each other what they have counted."""
    if value in ("0", "1"):
        return value == "1"
    if "://" in value:
        return RedisCache(value)
    if "/" in value:
        return DiskCache(value)
    raise ConfigurationError("write 1, 0, a directory like var/ai-stats, or the URL of a Redis")


def _cache_ttl(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigurationError("write seconds, like 3600")
    return seconds


def _put_cache_together(found: dict[str, Any], options: ProxyOptions) -> None:
    """Three variables are one argument. Without a store the others have nothing to say."""
    names = [name for name in ("ttl", "scope") if f"cache_{name}" in found]
    said = {name: found.pop(f"cache_{name}") for name in names}
    store = found.get("cache")
    if store is not None:
        found["cache"] = Cache(store, **said)
    elif names and "cache" not in found and "cache" not in options:
        raise ConfigurationError(
            f"AI_PROXY_CACHE_{names[0].upper()}: say with AI_PROXY_CACHE where answers are kept"
        )


def _choice(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in words:
            raise ConfigurationError(f"{value!r}: write one of {', '.join(words)}")
        return value

    return parse


def _fake(found: dict[str, Any]) -> Upstream:
    from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream  # noqa: PLC0415 - seldom needed

    return Upstream(
        base_url=FAKE_BASE_URL,
        api_key=found.pop("api_key", None),
        timeouts=found.pop("timeouts", None) or Timeouts(),
        transport=FakeUpstream(pace=_FAKE_PACE).transport(),
    )


_CONCURRENCY: dict[str, type[int | float]] = {"limit": int, "queue": int, "wait": float}

_VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "AI_PROXY_UPSTREAM": ("upstream", _upstream),
    "AI_PROXY_API_KEY": ("api_key", _api_key),
    "AI_PROXY_RETRY": ("retry", retry),
    "AI_PROXY_FALLBACK": ("fallback", fallback),
    "AI_PROXY_API_KEYS": ("api_keys", _api_keys),
    "AI_PROXY_ANONYMOUS": ("anonymous", _flag("admit everybody")),
    "AI_PROXY_PREFIX": ("prefix", check_prefix),
    "AI_PROXY_MAX_BODY": ("max_body", _size),
    "AI_PROXY_TIMEOUTS": ("timeouts", _timeouts),
    "AI_PROXY_TRUSTED_PROXIES": ("trusted_proxies", _networks),
    "AI_PROXY_NAME": ("name", str),
    "AI_PROXY_LIMITS": ("limits", _limits),
    "AI_PROXY_LIMITS_STORAGE": ("limits_storage", _storage),
    "AI_PROXY_ON_STORE_FAILURE": ("on_store_failure", _choice("allow", "deny", "memory")),
    "AI_PROXY_MAX_CONCURRENT": ("max_concurrent", _concurrency),
    "AI_PROXY_HEALTH_ENDPOINT": ("health_endpoint", _flag("let anybody ask if it is ready")),
    "AI_PROXY_VALIDATE": ("validate", _flag("judge requests")),
    "AI_PROXY_STRICT": ("strict", _flag("refuse what is not known")),
    "AI_PROXY_MODELS": ("models", _models),
    "AI_PROXY_IMAGE_URLS": ("images", _image_urls),
    "AI_PROXY_CACHE": ("cache", _cache_store),
    "AI_PROXY_CACHE_TTL": ("cache_ttl", _cache_ttl),
    "AI_PROXY_CACHE_SCOPE": ("cache_scope", _choice("subject", "shared")),
    "AI_PROXY_STATS": ("stats", _stats),
    "AI_PROXY_ACCESS_LOG": ("access_log", _flag("log a line for each call")),
    "AI_PROXY_CORS_ORIGINS": ("cors", _cors),
}
