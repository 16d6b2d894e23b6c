"""Answers that all processes of all machines share: the cache's store in Redis or Valkey."""

from __future__ import annotations

import asyncio
import math
import os
import re
from asyncio import AbstractEventLoop, Semaphore, get_running_loop
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.stores._packing import LARGEST, Head, head_of, pack, tags_in, unpack
from ai_proxy_mw.stores._redis_clients import checked, close, library, maker, room
from ai_proxy_mw.stores.base import StoreStats

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

T = TypeVar("T")

_MIB = 1024 * 1024
_LARGE = 64 * 1024
"""Bytes above which a thread compresses and inflates: the event loop would be longer than a
millisecond at it (zstd takes 4 for 256 KiB); to have a thread do it costs a third of one."""

_PAGE = 500
"""Keys that the server looks at for one step of a walk, and commands that go out together."""

_FIRST_BYTES = 512
"""What of an entry is read to see its tags; where they are longer, it is read once more."""

_LONGEST_TTL = 10 * 365 * 86_400.0

# Both are told in one step who holds it: of many who ask at once, just one is it.
_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""
_LET_GO = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

# What a process had before it forked is kept and never touched in the child: what it closed, or
# took off the event loop's list, the parent would miss.
_inherited: list[object] = []


class _Shelf(NamedTuple):
    """What an event loop has open: a client, how many may use it at once, and the scripts."""

    client: Any
    room: Semaphore
    take: Any
    let_go: Any


class RedisCache:
    """A CacheStore in Redis, Valkey, a cluster of them, or what a sentinel watches.

    where: a URL (`redis://`, `rediss://` with TLS, `unix://`, `valkey://`, `valkeys://`,
        `redis+cluster://host:port,host:port`, `redis+sentinel://host:port,host:port/service`;
        redis-py's options after a "?"), or a client of `redis.asyncio`, which is used as it is, in
        its event loop and process only, and not closed.
    ttl: seconds that an answer is good for.
    prefix: of all its keys, so that several apps can share a server.
    compress_above: bytes above which a value is compressed, with zstd where the package
        `zstandard` is installed and with zlib elsewhere. All that share a prefix need the same.
    max_value_bytes: a larger value is not stored, and not read.

    The server decides what it forgets when it is full: give it `maxmemory` and the policy
    `allkeys-lru`. Locks are as good as the server: one that fails over may forget them.
    Raises ConfigurationError.
    """

    def __init__(
        self,
        where: str | Redis | RedisCluster,
        *,
        ttl: float = 3600.0,
        prefix: str = "ai_proxy_mw:",
        compress_above: int = 4096,
        max_value_bytes: int = 16 * _MIB,
    ) -> None:
        _check(ttl, prefix, compress_above, max_value_bytes)
        self._prefix = prefix
        # A function, so that whoever prints this object's parts sees no password.
        self._another: Callable[[str], RedisCache] = lambda prefix: RedisCache(
            where,
            ttl=ttl,
            prefix=prefix,
            compress_above=compress_above,
            max_value_bytes=max_value_bytes,
        )
        self._ttl = float(ttl)
        self._entries = f"{prefix}k:".encode()
        self._locks = f"{prefix}lock:".encode()
        self._compress_above = compress_above
        self._max_value_bytes = max_value_bytes
        self._is_ours = isinstance(where, str)
        self._make = maker(where) if isinstance(where, str) else _give(checked(where))
        self._by_loop: dict[AbstractEventLoop, _Shelf] = {}
        self._lock = Lock()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<RedisCache {self._entries[:-2].decode()!r}>"  # no URL: it may hold a password

    @property
    def ttl(self) -> float:
        """Seconds that an answer is good for where the cache does not say."""
        return self._ttl

    @property
    def shared(self) -> bool:
        """Other processes see what is stored."""
        return True

    def beside(self, name: str) -> RedisCache:
        """One on the same server whose keys are not among this one's."""
        return self._another(f"{self._prefix}{name}:")

    async def get(self, key: str) -> bytes | None:
        """What is stored under a key, in one question; None where it cannot be read."""
        shelf = self._shelf()
        try:
            async with shelf.room:
                data = await shelf.client.get(self._name(key))
        except library().ResponseError as error:
            return _unless_of_another_type(error, None)
        head = None if data is None else head_of(data)
        if head is None or head.size > self._max_value_bytes:
            return None
        if head.is_compressed:
            return await _work(head.size, partial(unpack, data, head))
        return unpack(data, head)

    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        """Store a value for `ttl` seconds. One that is too large only removes what was there."""
        data = None
        if len(value) <= self._max_value_bytes and ttl > 0:
            job = partial(pack, value, tags, compress_above=self._compress_above)
            data = await _work(len(value), job)
        shelf = self._shelf()
        async with shelf.room:
            if data is None:
                await shelf.client.unlink(self._name(key))
            else:
                await shelf.client.set(self._name(key), data, px=_milliseconds(ttl))

    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        """Forget one key, or all that begin with `prefix` and have `tag`; how many they were.

        All but one key is a walk over all keys of the server, a page at a time.
        """
        if key is not None:
            return await self._unlink([self._name(key)])
        count = 0
        async for names in self._pages(prefix):
            count += await self._unlink(await self._tagged(names, tag) if tag else names)
        return count

    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        """Hold a lock for `lease` seconds, unless somebody else holds it; who holds it now."""
        shelf = self._shelf()
        async with shelf.room:
            holder: bytes = await shelf.take(
                keys=[self._locks + name.encode()], args=[owner, _milliseconds(lease)]
            )
        return holder.decode()

    async def unlock(self, name: str, owner: str) -> None:
        """Let go of a lock, if it is this owner's."""
        shelf = self._shelf()
        async with shelf.room:
            await shelf.let_go(keys=[self._locks + name.encode()], args=[owner])

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """The keys that begin with `prefix`; one may come twice while others come and go.

        A walk over all keys of the server, a page at a time.
        """
        async for names in self._pages(prefix):
            for name in names:
                yield name[len(self._entries) :].decode("utf-8", "replace")

    async def stats(self) -> StoreStats:
        """Entries, and the bytes of keys and values without what the server has around them.

        A walk over all keys of the server, a page at a time: for people, not for each call.
        """
        entries = size = 0
        async for names in self._pages():
            lengths = await self._together([("STRLEN", name) for name in names], 0)
            entries += len(names)
            size += sum(lengths) + sum(map(len, names))
        return StoreStats(entries, size)

    async def aclose(self) -> None:
        """Close what the running event loop has open. The store can be used again after it."""
        self._look_for_fork()
        with self._lock:
            shelf = self._by_loop.pop(get_running_loop(), None)
        if shelf is not None and self._is_ours:
            await close(shelf.client)

    def _name(self, key: str) -> bytes:
        return self._entries + key.encode()

    async def _pages(self, prefix: str = "") -> AsyncIterator[list[bytes]]:
        """The names of entries, without those that a page has twice."""
        shelf = self._shelf()
        pattern = re.sub(rb"([*?\[\]\\^])", rb"\\\1", self._name(prefix)) + b"*"
        page: set[bytes] = set()
        async for name in shelf.client.scan_iter(match=pattern, count=_PAGE):
            page.add(name)
            if len(page) == _PAGE:
                yield list(page)
                page.clear()
        if page:
            yield list(page)

    async def _tagged(self, names: list[bytes], tag: str) -> list[bytes]:
        """Those that have the tag."""
        starts = await self._together([("GETRANGE", n, 0, _FIRST_BYTES - 1) for n in names], b"")
        found, longer = [], []
        for name, start in zip(names, starts, strict=True):
            head = head_of(start)
            if head is not None and head.tags > _FIRST_BYTES:
                longer.append((name, head))
            elif head is not None and tag in tags_in(start, head):
                found.append(name)
        return found + await self._tagged_at_length(longer, tag)

    async def _tagged_at_length(self, longer: list[tuple[bytes, Head]], tag: str) -> list[bytes]:
        commands = [("GETRANGE", name, 0, head.tags - 1) for name, head in longer]
        starts = await self._together(commands, b"")
        pairs = zip(longer, starts, strict=True)
        return [name for (name, head), start in pairs if tag in tags_in(start, head)]

    async def _unlink(self, names: Iterable[bytes]) -> int:
        return sum(await self._together([("UNLINK", name) for name in names], 0))

    async def _together(self, commands: Sequence[tuple[Any, ...]], of_another_type: T) -> list[T]:
        """The answers to commands for one key each, which a cluster's client sends where it is."""
        if not commands:
            return []
        shelf = self._shelf()
        pipeline = shelf.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        async with shelf.room:
            answers = await pipeline.execute(raise_on_error=False)
        return [
            _unless_of_another_type(each, of_another_type) if isinstance(each, Exception) else each
            for each in answers
        ]

    def _shelf(self) -> _Shelf:
        if self._pid != os.getpid():
            self._look_for_fork()
        loop = get_running_loop()
        return self._by_loop.get(loop) or self._new(loop)

    def _new(self, loop: AbstractEventLoop) -> _Shelf:
        client = self._make()
        take, let_go = client.register_script(_TAKE), client.register_script(_LET_GO)
        shelf = _Shelf(client, Semaphore(room(client)), take, let_go)
        with self._lock:  # loops of several threads may begin at once
            # A loop that has ended took its connections with it.
            running = {known: old for known, old in self._by_loop.items() if not known.is_closed()}
            self._by_loop = {**running, loop: shelf}
        return shelf

    def _look_for_fork(self) -> None:
        """Begin anew in a child. Raises RuntimeError where that is not ours to do."""
        if self._pid == os.getpid():
            return
        if self._by_loop and not self._is_ours:
            raise RuntimeError("RedisCache: a client that was used before a fork; hand in a URL")
        _inherited.append((self._by_loop, self._lock))
        self._by_loop, self._lock, self._pid = {}, Lock(), os.getpid()


def _give(client: Any) -> Callable[[], Any]:
    return lambda: client


async def _work(size: int, job: Callable[[], T]) -> T:
    if size <= _LARGE:
        return job()
    try:
        return await asyncio.to_thread(job)
    except RuntimeError:
        return job()  # no thread takes anything more when the interpreter ends


def _milliseconds(seconds: float) -> int:
    return max(1, round(1000 * min(seconds, _LONGEST_TTL)))


def _unless_of_another_type(error: Exception, instead: T) -> T:
    """What somebody planted under a key, a list for instance, is nothing found."""
    if str(error).startswith("WRONGTYPE"):  # the protocol's own word for it
        return instead
    raise error


def _check(ttl: float, prefix: str, compress_above: int, max_value_bytes: int) -> None:
    if not (isinstance(ttl, int | float) and math.isfinite(ttl) and ttl > 0):
        raise ConfigurationError(f"RedisCache(ttl={ttl!r}): write seconds, like 3600")
    if not (isinstance(prefix, str) and prefix):
        raise ConfigurationError(f"RedisCache(prefix={prefix!r}): write a text like 'my_app:'")
    if not (isinstance(compress_above, int) and compress_above >= 0):
        raise ConfigurationError(
            f"RedisCache(compress_above={compress_above!r}): write bytes, like 4096"
        )
    if not (isinstance(max_value_bytes, int) and 0 < max_value_bytes <= LARGEST):
        raise ConfigurationError(
            f"RedisCache(max_value_bytes={max_value_bytes!r}): write bytes, like {16 * _MIB}"
        )
