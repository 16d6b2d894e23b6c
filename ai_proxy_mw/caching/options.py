"""What the owner says of the cache."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.caching.cacheable import CACHEABLE, DEFAULT_CACHED, LEFT_OUT

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw.stores.base import CacheStore

Whose = Literal["subject", "shared"]
Replay = Literal["instant", "paced"]

_METHODS = ("get", "set", "purge", "lock", "unlock", "keys", "stats", "aclose")
_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z_-]+")
_LONGEST = 10 * 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Cache:
    """Answers once, serves many: exact caching of whole answers.

    store: where answers are kept: MemoryCache(), DiskCache(directory), RedisCache(url), or yours.
    ttl: seconds that an answer is good for, or a function of the request that gives them; as the
        store says if None.
    scope: whose answers a caller is given: their own ("subject"; or those of `Identity.scope`
        where that is set), everybody's ("shared"), or a function of the request that names the
        group; None of it keeps the call out of the cache.
    when: a function of the request that says whether it may be answered from the cache at all.
    endpoints: which answers are kept, as `endpoints=` of AIProxy names them.
    vary: what else makes two questions two: request headers, and members of the body that are
        left out otherwise (`user`, `metadata`, …).
    temperature_zero_only: keep only what was asked with a temperature of 0.
    max_entry_bytes: the largest answer that is kept.
    replay: streams come from the cache at once ("instant") or as they came first ("paced").
    count_hits: whether limits of requests count what the cache answers. Tokens and money are
        never charged for it.
    stale_while_revalidate: seconds that an answer may still be given after its time, while one
        call fetches a new one (RFC 5861, section 3).
    stale_if_error: seconds that it may be given while the upstream fails (RFC 5861, section 4).

    Functions are called in the event loop and must not block. Raises ConfigurationError.
    """

    store: CacheStore
    _: KW_ONLY
    ttl: float | Callable[[Request], float] | None = None
    scope: Whose | Callable[[Request], str | None] = "subject"
    when: Callable[[Request], bool] | None = None
    endpoints: Iterable[str] = DEFAULT_CACHED
    vary: Iterable[str] = ()
    temperature_zero_only: bool = False
    max_entry_bytes: int = 1024 * 1024
    replay: Replay = "instant"
    count_hits: bool = True
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0

    def __post_init__(self) -> None:
        lacking = [name for name in _METHODS if not callable(getattr(self.store, name, None))]
        if lacking or isinstance(self.store, type):
            raise ConfigurationError(
                f"cache={self.store!r}: write MemoryCache(), DiskCache(directory), RedisCache(url) "
                f"or a store of your own{_but(lacking)}"
            )
        if not callable(self.scope) and self.scope not in get_args(Whose):
            raise ConfigurationError(
                f"Cache(scope={self.scope!r}): write 'subject', 'shared' or a function"
            )
        if self.replay not in get_args(Replay):
            raise ConfigurationError(f"Cache(replay={self.replay!r}): write 'instant' or 'paced'")
        if self.when is not None and not callable(self.when):
            raise ConfigurationError(f"Cache(when={self.when!r}): write a function of the request")
        self._check_functions()
        self._check_switches()
        self._check_numbers()
        object.__setattr__(self, "endpoints", _endpoints(self.endpoints))
        object.__setattr__(self, "vary", _names(self.vary))

    def _check_functions(self) -> None:
        for name in ("ttl", "scope", "when"):
            # A coroutine counts as true: `when` would let everything in.
            if inspect.iscoroutinefunction(getattr(self, name)):
                raise ConfigurationError(
                    f"Cache({name}=...): write a function without async; it is called in the loop"
                )

    def _check_switches(self) -> None:
        for name in ("temperature_zero_only", "count_hits"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"Cache({name}=...): write True or False")

    def _check_numbers(self) -> None:
        if self.ttl is not None and not callable(self.ttl):
            object.__setattr__(self, "ttl", _seconds("ttl", self.ttl))
        for name in ("stale_while_revalidate", "stale_if_error"):
            object.__setattr__(self, name, _seconds(name, getattr(self, name), none=0.0))
        if type(self.max_entry_bytes) is not int or self.max_entry_bytes < 1:
            raise ConfigurationError(
                f"Cache(max_entry_bytes={self.max_entry_bytes!r}): write a number of bytes above 0"
            )


def _but(lacking: list[str]) -> str:
    return f"; this has no {lacking[0]}()" if lacking else ", made already"


def cache_of(cache: Cache | CacheStore) -> Cache:
    """What was given as `cache=`. Raises ConfigurationError."""
    return cache if isinstance(cache, Cache) else Cache(cache)


def _seconds(name: str, value: object, *, none: float | None = None) -> float:
    """A number of seconds, or the number that means that there are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"Cache({name}={value!r}): write a number of seconds")
    if value != none and not 0 < value <= _LONGEST:  # NaN is not, either
        raise ConfigurationError(f"Cache({name}={value!r}): write seconds, ten years at most")
    return float(value)


def _endpoints(given: Iterable[str]) -> frozenset[str]:
    found = _listed(given)
    if found is None or not all(each in CACHEABLE for each in found):
        raise ConfigurationError(
            f"Cache(endpoints={given!r}): write a set of some of {sorted(CACHEABLE)}"
        )
    return frozenset(found)


def _listed(given: object) -> tuple[str, ...] | None:
    """The texts of a list or such; None for anything else, a text alone among it."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        return None
    found = tuple(given)
    return found if all(isinstance(each, str) for each in found) else None


def _names(given: Iterable[str]) -> tuple[str, ...]:
    names = _listed(given)
    if names is None or not all(_NAME.fullmatch(name) for name in names):
        raise ConfigurationError(
            f"Cache(vary={given!r}): write a list of names of headers, or of {sorted(LEFT_OUT)}"
        )
    return tuple(dict.fromkeys(name if name in LEFT_OUT else name.lower() for name in names))
