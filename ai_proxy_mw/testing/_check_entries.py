"""The rules for what a store keeps."""

from __future__ import annotations

import asyncio
import math
import secrets

from ai_proxy_mw.testing._check_bench import LONG, Bench, Rule, must

_YEAR = 366 * 24 * 3600.0
_MANY = 250
_AT_ONCE = 100


async def properties(bench: Bench) -> None:
    store = bench.store
    must(0 < store.ttl < math.inf, "ttl must be a number of seconds above 0")
    must(isinstance(store.shared, bool), "shared must be True or False")


async def values(bench: Bench) -> None:
    store = bench.store
    must(await store.get("never") is None, "get must give None for a key that was never set")
    whole = bytes(range(256))
    for value in (b"", whole, b"\r\n", secrets.token_bytes(bench.largest)):
        await store.set("a", value, ttl=LONG)
        found = await store.get("a")
        must(isinstance(found, bytes), "get must give bytes, also for an empty value")
        must(found == value, "get must give the very bytes that were set")
    must(await store.get("a") == value, "get must give a value as often as it is asked for it")
    await store.set("a", b"new", ttl=_YEAR, tags=["t"])
    must(await store.get("a") == b"new", "set must take the place of what was there")


async def names(bench: Bench) -> None:
    long = "k" * 199
    letters = "abcdefghijklmnopqrstuvwxyz"
    keys = [
        f"{letters}{letters.upper()}0123456789:._-/",
        *(long + last for last in "abAB/"),
        *("a", "A", "a/", "a/b", "a/b/c", "/a", "//", "a:b", "a_b", "a-b", "a.b", "-a"),
        *(".", "..", "../a", "a/../b", "0", "00", "-", "_", ":"),
    ]
    await bench.put(*keys)
    must(
        await bench.has(*keys),
        "keys of letters, digits and :._-/ up to 200 characters must be told apart, each by itself",
    )
    must(await bench.listed() == sorted(keys), "keys must give the keys as they were set")


async def expiry(bench: Bench) -> None:
    store, moment = bench.store, bench.moment
    await store.set("longer", b"1", ttl=moment)
    await store.set("longer", b"2", ttl=LONG)
    await store.set("shorter", b"1", ttl=LONG)
    await store.set("shorter", b"2", ttl=moment)
    await store.set("short", b"1", ttl=moment)
    must(await store.get("short") == b"1", "a value must be there until its ttl is over")
    await bench.pass_by()
    must(await store.get("short") is None, "a value must be gone when its ttl is over")
    must(await store.get("shorter") is None, "set again with a shorter ttl, the new one must count")
    must(await store.get("longer") == b"2", "set again with a longer ttl, the new one must count")
    await store.set("short", b"3", ttl=LONG)
    must(await store.get("short") == b"3", "what has run out must be there when it is set again")


async def purge_by_key(bench: Bench) -> None:
    store = bench.store
    await bench.put("a", "ab", "b", tags=("a",))
    must(await store.purge(key="never") == 0, "purge of a key that is not there must count 0")
    must(await store.purge(key="a") == 1, "purge of a key must count 1")
    must(await bench.has_none("a"), "a key that was purged must be gone")
    must(await bench.has("ab", "b"), "purge of a key must leave all others")
    must(await store.purge(key="a") == 0, "a key that was purged must not be counted again")
    await bench.put("a")
    must(await bench.has("a"), "a key that was purged must be there when it is set again")


async def purge_by_prefix(bench: Bench) -> None:
    store = bench.store
    keys = ["a_b:1", "a_b:2", "axb:1", "A_b:1", "b:a_b", "a.b", "a_", "a"]
    await bench.put(*keys)
    for prefix in ("*", "a*", "?", "a?b", "[a]", "[", "%", "a%", "\\", "^a", "(", "a.*", "'", '"'):
        count = await store.purge(prefix=prefix)
        must(
            count == 0 and await bench.has(*keys),
            f"a prefix must be taken letter by letter, {prefix!r} too",
        )
        must(await bench.listed(prefix) == [], f"keys must take {prefix!r} letter by letter")
    must(await store.purge(prefix="a_b:1:") == 0, "a prefix longer than a key must not match it")
    must(await store.purge(prefix="a_b") == 2, "purge by prefix must count the keys that begin so")
    must(await bench.has_none("a_b:1", "a_b:2"), "what begins with a purged prefix must be gone")
    must(await bench.has(*keys[2:]), "purge by prefix must leave keys that do not begin just so")
    must(await store.purge(prefix="a_") == 1, "a key begins with itself")
    must(await bench.has("a"), "purge by prefix must leave keys that are shorter")
    must(await store.purge(prefix="A") == 1, "upper and lower case are different prefixes")


async def purge_by_tag(bench: Bench) -> None:
    store = bench.store
    await bench.put("a1", tags=("s:1", "m:x"))
    await bench.put("a2", tags=("m:x", "s:2"))
    await bench.put("a3", tags=("s:1", "s:1"))
    await bench.put("a4", tags=("s:11", "S:1", "xs:1", "s_1", "s:1:"))
    await bench.put("b1", tags=("s:1",))
    await bench.put("s:1")
    for tag in ("s", "s:", ":1", "*", "s?1", "s_1_", "%", "never"):
        must(await store.purge(tag=tag) == 0, f"a tag must be taken as a whole: {tag!r} is none")
    must(
        await store.purge(prefix="a", tag="s:1") == 2,
        "purge by prefix and tag must count the keys that have both",
    )
    must(await bench.has_none("a1", "a3"), "purge by prefix and tag must forget what has both")
    must(await bench.has("a2", "a4", "s:1"), "purge by prefix and tag must leave what has one")
    must(await bench.has("b1"), "purge by prefix and tag must leave what has the tag alone")
    must(await store.purge(tag="s:1") == 1, "purge by tag must count the keys that have it")
    must(await bench.has_none("b1"), "purge by tag must forget what has it")
    must(await bench.has("a2", "a4", "s:1"), "purge by tag must leave what does not have it")
    must(await store.purge(tag="m:x") == 1, "each tag of several must work")
    await bench.put("a4", tags=("new",))
    must(await store.purge(tag="s:11") == 0, "set again, a key must lose the tags that it had")
    must(await store.purge(tag="new") == 1, "set again, a key must have the new tags")


async def purge_all(bench: Bench) -> None:
    keys = [f"k:{number}" for number in range(_MANY)]
    await bench.put(*keys, tags=("t",))
    must(
        await bench.store.purge(prefix="k:", tag="t") == _MANY,
        f"purge must count right, also {_MANY} keys",
    )
    must(await bench.has_none(*keys), f"purge must forget all, also {_MANY} keys")
    await bench.put("a")
    await bench.put("b", tags=("t",))
    must(await bench.store.purge() == 2, "purge without arguments must count all")
    must(await bench.has_none("a", "b"), "purge without arguments must forget all")
    must(await bench.store.purge() == 0, "purge of an empty store must count 0")


async def listing(bench: Bench) -> None:
    store = bench.store
    must(await bench.listed() == [], "keys of an empty store must give nothing")
    keys = sorted(f"{letter}:{number}" for letter in "ab" for number in range(_MANY // 2))
    await bench.put(*keys, tags=("c:1",))
    await bench.put(*keys, tags=("c:2",))
    must(await bench.listed() == keys, "keys must give each key once")
    must(
        await bench.listed("a:") == [key for key in keys if key.startswith("a:")],
        "keys must give just those that begin with the prefix",
    )
    must(isinstance(await anext(store.keys()), str), "keys must give texts")
    must(await bench.has(*keys), "whoever stops reading keys must leave the store well")
    async for key in store.keys("a:"):
        await store.purge(key=key)
    must(await bench.listed("a:") == [], "what keys gives must be purgeable while it is read")


async def stats(bench: Bench) -> None:
    store = bench.store
    must((await store.stats()).entries == 0, "stats of an empty store must count no entries")
    await bench.put("a", "b", tags=("t", "u"))
    await store.set("b", secrets.token_bytes(50_000), ttl=LONG)
    lock = bench.lock_name("stats")
    await store.lock(lock, "me", lease=LONG)
    found = await store.stats()
    await store.unlock(lock, "me")
    must(found.entries == 2, "stats must count each key once, and neither tags nor locks")
    must(found.size > 25_000, "stats must give the size in bytes")
    await store.purge()
    must((await store.stats()).entries == 0, "stats must not count what was purged")


async def refusal(bench: Bench) -> None:
    if bench.too_large is None:
        return
    await bench.put("a")
    await bench.store.set("a", secrets.token_bytes(bench.too_large), ttl=LONG)
    must(
        await bench.has_none("a"),
        "a value that is too large must leave nothing, also not what was there before",
    )


async def at_once(bench: Bench) -> None:
    store = bench.store
    keys = [f"k:{number}" for number in range(_AT_ONCE)]
    await asyncio.gather(*(store.set(key, key.encode(), ttl=LONG) for key in keys))
    found = await asyncio.gather(*(store.get(key) for key in keys))
    must(
        found == [key.encode() for key in keys],
        f"{_AT_ONCE} values set at once must all be there, each under its own key",
    )
    versions = [bytes([number]) * 5000 for number in range(_AT_ONCE)]
    seen: set[bytes | None] = set()

    async def look() -> None:
        for _ in range(10):
            seen.add(await store.get("same"))
            await asyncio.sleep(0)

    looking = asyncio.gather(*(look() for _ in range(10)))
    await asyncio.gather(*(store.set("same", version, ttl=LONG) for version in versions))
    await looking
    must(
        {*seen, await store.get("same")} <= {None, *versions},
        "one key set by many at once must have one of their values, whole, at any time",
    )
    must(await store.get("same") is not None, "one key set by many at once must be there")


async def leaving(bench: Bench) -> None:
    """Callers are cancelled while the store is at work: their time is up, or they leave."""
    store = bench.store
    keys = [f"k:{number}" for number in range(20)]
    for patience in range(6):
        await bench.put(*keys)
        asked = [store.get(key) for key in [*keys, *["never"] * len(keys)]]
        told = [store.set(key, key.encode(), ttl=LONG) for key in keys]
        tasks = [asyncio.ensure_future(call) for call in (*asked, *told)]
        for _ in range(patience):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        must(
            await bench.has(*keys) and await bench.has_none("never"),
            "a caller that is cancelled must not spoil the answers to others",
        )


ENTRY_RULES: list[Rule] = [
    properties,
    values,
    names,
    expiry,
    purge_by_key,
    purge_by_prefix,
    purge_by_tag,
    purge_all,
    listing,
    stats,
    refusal,
    at_once,
]
