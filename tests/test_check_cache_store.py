"""The suite for stores passes the good ones and tells each rule that others break."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ai_proxy_mw import CacheStore, MemoryCache, StoreStats, TieredCache
from ai_proxy_mw.testing import check_cache_store
from tests.servers import ROOT
from tests.stores.storages import Clock


def _check(store: CacheStore, clock: Clock, **options: Any) -> None:
    async def wait(seconds: float) -> None:
        clock.move(seconds)

    asyncio.run(check_cache_store(store, wait=wait, **options))


def test_the_memory_passes() -> None:
    clock = Clock()
    _check(MemoryCache(clock=clock), clock, too_large=2**23)


def test_tiers_pass() -> None:
    clock = Clock()
    near = MemoryCache(clock=clock)
    _check(TieredCache(near, MemoryCache(clock=clock)), clock, too_large=2**23)


def test_tiers_pass_whose_near_store_keeps_nothing_large() -> None:
    clock = Clock()
    near = MemoryCache(clock=clock, max_bytes=2**16)
    _check(TieredCache(near, MemoryCache(clock=clock)), clock)


def test_it_waits_by_itself() -> None:
    asyncio.run(check_cache_store(MemoryCache(), moment=0.1))


def _connect(path: str, **options: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite3.connect(path, **options)
    connection.execute("PRAGMA synchronous = OFF")  # the disk's own pace is not what is tried
    return connection


def test_the_store_of_the_docs_passes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cache-stores.md").read_text()
    (code,) = re.findall(
        r"^```python\n([^`]*class SQLiteCache.*?)^```", page, re.MULTILINE | re.DOTALL
    )
    clock = Clock()
    names: dict[str, Any] = {}
    exec(compile(code, "cache-stores.md", "exec"), names)
    names["time"] = SimpleNamespace(time=clock)
    names["sqlite3"] = SimpleNamespace(connect=_connect)
    _check(names["SQLiteCache"](str(tmp_path / "answers.db")), clock)


class _Mutant(MemoryCache):
    """A store that keeps to all, apart from what a subclass changes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.clock = clock


class _Timeless(_Mutant):
    ttl = -1.0


class _Vague(_Mutant):
    shared = None  # type: ignore[assignment]


class _Lost(_Mutant):
    async def get(self, key: str) -> bytes | None:
        return await super().get(key) or b""


class _Text(_Mutant):
    async def get(self, key: str) -> Any:
        value = await super().get(key)
        return value and value.replace(b"\r\n", b"\n")


class _NoEmpty(_Mutant):
    async def get(self, key: str) -> Any:
        return await super().get(key) or None


class _Once(_Mutant):
    async def get(self, key: str) -> Any:
        value = await super().get(key)
        if value and len(value) > 1000:
            await self.purge(key=key)
        return value


class _First(_Mutant):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        if value != b"new":
            await super().set(key, value, ttl=ttl, tags=tags)


class _Short(_Mutant):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        await super().set(key[:199], value, ttl=ttl, tags=tags)

    async def get(self, key: str) -> bytes | None:
        return await super().get(key[:199])


class _Folded(_Mutant):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        await super().set(key.lower(), value, ttl=ttl, tags=tags)

    async def get(self, key: str) -> bytes | None:
        return await super().get(key.lower())


class _Renaming(_Mutant):
    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        async for key in super().keys(prefix):
            yield key.replace("/", "_")


class _Eternal(_Mutant):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        await super().set(key, value, ttl=1e9, tags=tags)


class _Hasty(_Mutant):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        await super().set(key, value, ttl=ttl // 2, tags=tags)


class _FirstTtl(_Mutant):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        entry = self._entries.get(key)
        due = entry.due - self.clock.now if entry else ttl
        await super().set(key, value, ttl=due, tags=tags)


class _LongestTtl(_Mutant):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        entry = self._entries.get(key)
        due = max(ttl, entry.due - self.clock.now) if entry else ttl
        await super().set(key, value, ttl=due, tags=tags)


class _Blind(_Mutant):
    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        return await super().purge(key=key, prefix=prefix, tag=tag) and 1


class _Beyond(_Mutant):
    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        return await super().purge(prefix=key if key is not None else prefix, tag=tag)


class _Wild(_Mutant):
    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        cut = prefix.partition("*")[0]
        return await super().purge(key=key, prefix=cut, tag=tag)


class _Like(_Mutant):
    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        if key is not None or "_" not in prefix:
            return await super().purge(key=key, prefix=prefix, tag=tag)
        like = re.compile(re.escape(prefix).replace("_", "."))
        found = [name for name in self._entries if like.match(name)]
        return sum([await super(_Like, self).purge(key=name) for name in found])


class _Either(_Mutant):
    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        return await super().purge(key=key, prefix="" if tag else prefix, tag=tag)


class _Tagless(_Mutant):
    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        return await super().purge(key=key, prefix=prefix)


class _PartOfTag(_Mutant):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        parts = [tag[:end] for tag in tags for end in range(1, len(tag) + 1)]
        await super().set(key, value, ttl=ttl, tags=parts)


class _OldTags(_Mutant):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        entry = self._entries.get(key)
        await super().set(key, value, ttl=ttl, tags=[*tags, *(entry.tags.split() if entry else ())])


class _FirstPage(_Mutant):
    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        if key is not None:
            return await super().purge(key=key)
        return self._forget(list(self._entries)[:100], prefix, tag)


class _ManyKeys(_Mutant):
    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        async for key in super().keys(prefix):
            yield key
            if key == "b:7":
                yield key


class _AnyKeys(_Mutant):
    def keys(self, prefix: str = "") -> AsyncIterator[str]:
        return super().keys("" if prefix == "a:" else prefix)


class _LiveKeys(_Mutant):
    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        place = 0
        while place < len(self._entries):
            key = list(self._entries)[place]
            place += 1
            if key.startswith(prefix):
                yield key


class _CountsLocks(_Mutant):
    async def stats(self) -> StoreStats:
        return StoreStats(len(self._entries) + len(self._locks), self._size)


class _Sizeless(_Mutant):
    async def stats(self) -> StoreStats:
        return StoreStats(len(self._entries), len(self._entries))


class _KeepsOld(_Mutant):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        if len(value) < 2**23:
            await super().set(key, value, ttl=ttl, tags=tags)


class _Drops(_Mutant):
    """Of what is set at once, it loses all but one."""

    busy = False

    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        if not self.busy:
            self.busy = True
            await asyncio.sleep(0)
            self.busy = False
            await super().set(key, value, ttl=ttl, tags=tags)


class _Pipe(_Mutant):
    """One connection, on which the answer to who has left waits for the next."""

    left: list[bytes | None]

    async def get(self, key: str) -> bytes | None:
        answers = self.__dict__.setdefault("left", [])
        answers.append(await super().get(key))
        await asyncio.sleep(0)
        return answers.pop(0)  # type: ignore[no-any-return]


class _Torn(_Mutant):
    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        for end in (len(value) // 2, len(value)):
            await super().set(key, value[:end], ttl=ttl, tags=tags)
            await asyncio.sleep(0)


class _Slack(_Mutant):
    """It looks first and takes the lock then."""

    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        held = self._locks.get(name)
        if held and held[0] != owner and held[1] > self.clock.now:
            return held[0]
        await asyncio.sleep(0)
        self._locks[name] = (owner, self.clock.now + lease)
        return owner


class _SlackTakeover(_Slack):
    """It is exact where the lock is free, and not where a lease has run out."""

    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        if name in self._locks:
            return await super().lock(name, owner, lease=lease)
        return await MemoryCache.lock(self, name, owner, lease=lease)


class _Mute(_Mutant):
    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        return owner if await super().lock(name, owner, lease=lease) == owner else "somebody"


class _Waiting(_Mutant):
    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        while await super().lock(name, owner, lease=lease) != owner:
            await asyncio.sleep(0.001)
        return owner


class _OnceHeld(_Mutant):
    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        held = self._locks.get(name)
        if held and held[0] == owner and held[1] > self.clock.now:
            return "taken"
        return await super().lock(name, owner, lease=lease)


class _OneLock(_Mutant):
    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        return await super().lock("lock", owner, lease=lease)

    async def unlock(self, name: str, owner: str) -> None:
        await super().unlock("lock", owner)


class _Burglar(_Mutant):
    async def unlock(self, name: str, owner: str) -> None:
        self._locks.pop(name, None)


class _Stuck(_Mutant):
    async def unlock(self, name: str, owner: str) -> None:
        pass


class _NoLease(_Mutant):
    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        return await super().lock(name, owner, lease=1e9)


class _NoRenewal(_Mutant):
    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        held = self._locks.get(name)
        if held and held[0] == owner and held[1] > self.clock.now:
            return owner
        return await super().lock(name, owner, lease=lease)


class _OnlyLonger(_Mutant):
    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        held = self._locks.get(name)
        if held and held[0] == owner:
            lease = max(lease, held[1] - self.clock.now)
        return await super().lock(name, owner, lease=lease)


class _LocksAreKeys(_Mutant):
    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        if name.endswith("apart"):
            await self.set(name, owner.encode(), ttl=lease)
        return await super().lock(name, owner, lease=lease)


class _PurgesLocks(_Mutant):
    async def purge(self, *, key: str | None = None, prefix: str = "", tag: str = "") -> int:
        if key is None and not tag:
            self._locks.clear()
        return await super().purge(key=key, prefix=prefix, tag=tag)


class _Closed(_Mutant):
    closed = False

    async def aclose(self) -> None:
        self.closed = True

    async def set(self, key: str, value: bytes, *, ttl: float, tags: Sequence[str] = ()) -> None:
        if not self.closed:
            await super().set(key, value, ttl=ttl, tags=tags)


class _OnePerLoop(_Mutant):
    """Each event loop has a store of its own."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.stores: dict[object, MemoryCache] = {}

    def _mine(self) -> MemoryCache:
        loop = asyncio.get_running_loop()
        return self.stores.setdefault(loop, MemoryCache(clock=self.clock))

    async def lock(self, name: str, owner: str, *, lease: float) -> str:
        return await self._mine().lock(name, owner, lease=lease)

    async def unlock(self, name: str, owner: str) -> None:
        await self._mine().unlock(name, owner)


MUTANTS: dict[type[_Mutant], str] = {
    _Timeless: "ttl must be a number",
    _Vague: "shared must be True or False",
    _Lost: "None for a key that was never set",
    _Text: "the very bytes that were set",
    _NoEmpty: "also for an empty value",
    _Once: "as often as it is asked for",
    _First: "take the place of what was there",
    _Short: "up to 200 characters must be told apart",
    _Folded: "must be told apart",
    _Renaming: "the keys as they were set",
    _Eternal: "gone when its ttl is over",
    _Hasty: "there until its ttl is over",
    _FirstTtl: "with a shorter ttl, the new one must count",
    _LongestTtl: "with a shorter ttl, the new one must count",
    _Blind: "count the keys that begin so",
    _Beyond: "purge of a key must",
    _Wild: "'*' too",
    _Like: "count the keys that begin so",
    _Either: "count the keys that have both",
    _Tagless: "is none",
    _PartOfTag: "a tag must be taken as a whole",
    _OldTags: "lose the tags that it had",
    _FirstPage: "also 250 keys",
    _ManyKeys: "each key once",
    _AnyKeys: "just those that begin with the prefix",
    _LiveKeys: "purgeable while it is read",
    _CountsLocks: "neither tags nor locks",
    _Sizeless: "the size in bytes",
    _KeepsOld: "also not what was there before",
    _Drops: "set at once must all be there",
    _Torn: "whole, at any time",
    _Pipe: "must not spoil the answers to others",
    _Slack: "just one must get a lock",
    _SlackTakeover: "just one must get a lock",
    _Mute: "tell who holds it",
    _Waiting: "holding: no method may wait",
    _OnceHeld: "hold it on",
    _OneLock: "must not touch one another",
    _Burglar: "holder's alone",
    _Stuck: "free the lock at once",
    _NoLease: "free after its lease",
    _NoRenewal: "able to renew",
    _OnlyLonger: "also for a shorter one",
    _LocksAreKeys: "not be found as a key",
    _PurgesLocks: "purge must not free locks",
    _Closed: "usable again after aclose",
    _OnePerLoop: "other event loops of the process",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__.strip("_"))
def test_it_tells_the_rule_that_is_broken(mutant: type[_Mutant]) -> None:
    clock = Clock()
    patience = 0.2 if mutant is _Waiting else 60.0
    with pytest.raises(AssertionError) as told:
        _check(mutant(clock), clock, too_large=2**23, patience=patience)
    assert MUTANTS[mutant] in str(told.value)


def test_one_event_loop_may_be_enough() -> None:
    clock = Clock()
    with pytest.raises(AssertionError, match="ttl must be"):
        _check(_SingleLoop(clock), clock, several_loops=False)


class _SingleLoop(_OnePerLoop):
    ttl = 0.0


def test_what_the_store_raises_comes_through() -> None:
    class Late(_Mutant):
        async def lock(self, name: str, owner: str, *, lease: float) -> str:
            raise TimeoutError("the server")

    clock = Clock()
    with pytest.raises(TimeoutError, match="the server"):
        _check(Late(clock), clock)


def test_a_store_in_use_is_left_alone() -> None:
    clock = Clock()
    store = MemoryCache(clock=clock)
    asyncio.run(store.set("a", b"1", ttl=60))
    with pytest.raises(AssertionError, match="an empty store"):
        _check(store, clock)
    assert asyncio.run(store.get("a")) == b"1"
