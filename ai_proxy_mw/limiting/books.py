"""The ledger that a call's counts go to, in its event loop."""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._limits import Limit
from ai_proxy_mw.limiting.leases import Leases
from ai_proxy_mw.limiting.ledger import Ledger, Taken
from ai_proxy_mw.limiting.memcached import MemcachedCounts
from ai_proxy_mw.stores.guard import PATIENCE, Guard

# The same protocol, and one client library for all of it.
_ALIASES = {"valkey": "redis", "valkeys": "rediss"}

_NO_END = 2**31


class Book:
    """A ledger, who keeps its places held, and who asks it only while it answers."""

    def __init__(self, store: Any, clock: Callable[[], float], guard: Guard | None) -> None:
        self.store = store
        self.guard = guard
        self.ledger = Ledger(store, clock)
        self.leases = Leases(self.ledger, waits=guard is not None)

    def settle(self, taken: Taken, amount: int) -> None:
        """Have what was taken made the amount that was used, without anybody waiting for it."""
        if self.guard is None:
            self.leases.settle(taken, amount)
        else:
            self.leases.later(self.guard.ask(partial(self.ledger.settle, taken, amount)))


class _Shelf(NamedTuple):
    book: Book
    instead: Book  # in this process, for while the store is down


class Books:
    """The book of each event loop, since a client's connections belong to one loop.

    storage: a URI of the `limits` library, an asynchronous storage of it, or None for counts in
        this process.

    Raises ConfigurationError.
    """

    def __init__(self, storage: object | None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._local = _local()
        self.is_local = storage is None or storage == "memory://"
        self._make = self._give_local if self.is_local else _maker(storage)
        self._sample = self._make()  # tells now, and not at the first call, what is missing
        self._by_loop: dict[AbstractEventLoop, _Shelf] = {}

    def check(self, limit: Limit) -> None:
        """Raises ConfigurationError for a limit that the storage cannot keep."""
        if limit.strategy == "moving" and not hasattr(self._sample, "acquire_entry"):
            raise ConfigurationError(
                f"Limit(strategy='moving'): {type(self._sample).__name__} keeps no times; write "
                "strategy='sliding'"
            )

    def here(self) -> Book:
        """The book of the running event loop."""
        return self._shelf().book

    def instead(self) -> Book:
        """The book that counts in this process, while the store is down."""
        return self._shelf().instead

    async def aclose(self) -> None:
        """Wait for what is being settled, and close the running loop's connections."""
        shelf = self._by_loop.pop(get_running_loop(), None)
        if shelf is not None:
            await shelf.instead.leases.aclose()
            await shelf.book.leases.aclose()
            await _close(shelf.book.store)

    def _give_local(self) -> Any:
        return self._local

    def _shelf(self) -> _Shelf:
        loop = get_running_loop()
        return self._by_loop.get(loop) or self._new(loop)

    def _new(self, loop: AbstractEventLoop) -> _Shelf:
        instead = Book(self._local, self._clock, None)
        if self.is_local:
            shelf = _Shelf(instead, instead)
        else:
            shelf = _Shelf(Book(self._make(), self._clock, Guard("limits")), instead)
        # A loop that has ended took its connections with it.
        running = {known: old for known, old in self._by_loop.items() if not known.is_closed()}
        self._by_loop = {**running, loop: shelf}
        return shelf


def _maker(storage: object | None) -> Callable[[], Any]:
    if isinstance(storage, str):
        return lambda: _from_uri(storage)
    from limits.aio.storage import Storage  # noqa: PLC0415 - only where there are limits

    if not isinstance(storage, Storage):
        raise ConfigurationError(
            f"limits_storage={type(storage).__name__}: write a URI like 'redis://localhost:6379', "
            "or an asynchronous storage, of limits.aio.storage"
        )
    counts = _counting(storage)
    return lambda: counts


def _counting(storage: Any) -> Any:
    """The storage, as the ledger uses it."""
    return MemcachedCounts(storage) if "async+memcached" in storage.STORAGE_SCHEME else storage


def _local() -> Any:
    from ai_proxy_mw.stores.local import LocalStorage  # noqa: PLC0415 - imports limits

    return LocalStorage()


def _from_uri(uri: str) -> Any:
    from limits.storage import storage_from_string  # noqa: PLC0415 - see above

    scheme, _, rest = uri.partition("://")
    if not rest:
        raise ConfigurationError("limits_storage: write a URI like 'redis://localhost:6379'")
    family, *more = scheme.split("+")
    scheme = "+".join([_ALIASES.get(family, family), *more])
    try:
        return _counting(storage_from_string(f"async+{scheme}://{rest}", **_options(scheme)))
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - each client library has errors of its own
        # Not the URI, which may hold a password.
        raise ConfigurationError(
            f"limits_storage={scheme}://…: {type(error).__name__}; is it a whole URI, port "
            "included, as the limits library takes it, and is the package for it installed?"
        ) from None


def _options(scheme: str) -> dict[str, Any]:
    if scheme == "disk":
        import ai_proxy_mw.stores.disk_limits  # noqa: F401, PLC0415 - puts itself on the list

        return {"timeout": PATIENCE}
    if scheme == "memcached":
        return {"connect_timeout": PATIENCE, "read_timeout": PATIENCE}
    return _of_redis(scheme) if scheme.startswith("redis") else {}


def _of_redis(scheme: str) -> dict[str, Any]:
    from redis.asyncio.retry import Retry  # noqa: PLC0415 - it is an extra
    from redis.backoff import NoBackoff  # noqa: PLC0415 - see above

    options: dict[str, Any] = {
        "implementation": "redispy",
        "socket_timeout": PATIENCE,
        "socket_connect_timeout": PATIENCE,
        # Once, for connections that were kept while the server was started anew. A cluster's
        # client would try ten times and read the layout each time, in the event loop.
        "retry": Retry(NoBackoff(), 1),
        # A pool raises at its end (100 since redis-py 8), as if the server were down.
        "max_connections": _NO_END,
    }
    if scheme == "redis+sentinel":
        options["use_replicas"] = False  # they are behind: a count must be the newest
    return options


async def _close(store: Any) -> None:
    """The `limits` library has no word for it; what holds connections differs by client."""
    bridge = getattr(store, "bridge", None)
    sentinel = getattr(bridge, "sentinel", None)
    clients = [getattr(bridge, name, None) for name in ("storage", "storage_replica")]
    for owner in (store, *clients, *getattr(sentinel, "sentinels", ())):
        aclose = getattr(owner, "aclose", None)
        if aclose is not None:
            await aclose()
