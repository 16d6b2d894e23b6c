"""The rules for the locks of a store, and for its use by several event loops."""

from __future__ import annotations

import asyncio

from ai_proxy_mw.testing._check_bench import LONG, Bench, Rule, must

_CONTENDERS = [f"owner-{number}" for number in range(50)]


async def _contend(bench: Bench, name: str) -> None:
    holders = await asyncio.gather(
        *(bench.store.lock(name, owner, lease=LONG) for owner in _CONTENDERS)
    )
    winners = [owner for owner, holder in zip(_CONTENDERS, holders, strict=True) if owner == holder]
    must(len(winners) == 1, f"of {len(_CONTENDERS)} who try at once just one must get a lock")
    must(set(holders) == set(winners), "lock must tell the others who holds it")


async def holding(bench: Bench) -> None:
    store, name = bench.store, bench.lock_name("holding")
    must(await store.lock(name, "a", lease=LONG) == "a", "lock must give a free lock")
    must(await store.lock(name, "b", lease=LONG) == "a", "lock must tell who holds it")
    must(await store.lock(name, "a", lease=LONG) == "a", "the holder of a lock must hold it on")
    other = bench.lock_name("other")
    must(await store.lock(other, "b", lease=LONG) == "b", "locks must not touch one another")
    await store.unlock(name, "b")
    must(await store.lock(name, "b", lease=LONG) == "a", "unlock must be the holder's alone")
    await store.unlock(name, "a")
    must(await store.lock(name, "b", lease=LONG) == "b", "unlock must free the lock at once")
    await store.unlock(bench.lock_name("never"), "a")
    await store.unlock(name, "a")
    must(await store.lock(name, "c", lease=LONG) == "b", "unlock must be the new holder's alone")


async def contention(bench: Bench) -> None:
    await _contend(bench, bench.lock_name("contention"))


async def leases(bench: Bench) -> None:
    store, moment = bench.store, bench.moment
    left, crowd, renewed, shortened = map(bench.lock_name, ["left", "crowd", "renewed", "short"])
    await store.lock(renewed, "a", lease=moment)
    await store.lock(renewed, "a", lease=LONG)
    await store.lock(shortened, "a", lease=LONG)
    await store.lock(shortened, "a", lease=moment)
    await store.lock(crowd, "a", lease=moment)
    await store.lock(left, "a", lease=moment)
    must(await store.lock(left, "b", lease=LONG) == "a", "a lock must hold while its lease does")
    await bench.pass_by()
    must(await store.lock(left, "b", lease=LONG) == "b", "a lock must be free after its lease")
    await store.unlock(left, "a")
    must(
        await store.lock(left, "a", lease=LONG) == "b",
        "who held a lock before must not free it for who has taken it over",
    )
    await _contend(bench, crowd)
    must(await store.lock(renewed, "b", lease=LONG) == "a", "the holder must be able to renew")
    must(
        await store.lock(shortened, "b", lease=LONG) == "b",
        "a lock must be held for the lease named last, also for a shorter one",
    )


async def no_entries(bench: Bench) -> None:
    store, name = bench.store, bench.lock_name("apart")
    await store.lock(name, "a", lease=LONG)
    must(await store.get(name) is None, "a lock must not be found as a key")
    must(await bench.listed() == [], "keys must not give locks")
    await store.set(name, b"1", ttl=LONG, tags=[name])
    must(await store.lock(name, "b", lease=LONG) == "a", "set must not touch a lock of that name")
    must(await store.purge(tag=name) == 1, "purge must not count locks")
    await store.purge(key=name)
    await store.purge(prefix=bench.run)
    must(await store.purge() == 0, "purge must not count locks")
    must(await store.lock(name, "b", lease=LONG) == "a", "purge must not free locks")
    await bench.put(name)
    await store.unlock(name, "a")
    must(await bench.has(name), "unlock must not touch a key of that name")


async def closing(bench: Bench) -> None:
    store, name = bench.store, bench.lock_name("closing")
    await bench.put("a")
    await store.aclose()
    await store.aclose()
    await bench.put("b")
    must(await bench.has("b"), "a store must be usable again after aclose")
    must(await store.lock(name, "a", lease=LONG) == "a", "locks must be usable again after aclose")
    await store.aclose()
    must(await bench.has("b"), "a store must be usable again after aclose, also for reading")


async def other_loops(bench: Bench) -> None:
    """Each process may have two loops: that of the app, and that of the WSGI door."""
    store, name = bench.store, bench.lock_name("loops")
    mine, others = ([f"{who}:{number}" for number in range(50)] for who in ("mine", "other"))

    async def other() -> str:
        await bench.put(*others)
        must(await bench.has(*others), "event loops of two threads must be able to use it at once")
        holder = await store.lock(name, "b", lease=LONG)
        await store.aclose()
        return holder

    await store.lock(name, "a", lease=LONG)
    for _ in range(2):  # the second finds what the first has left behind
        holder, _done = await asyncio.gather(
            asyncio.to_thread(lambda: asyncio.run(other())), bench.put(*mine)
        )
        must(holder == "a", "a lock must hold for the other event loops of the process, too")
        must(
            await bench.has(*mine, *others),
            "what one event loop sets the others must see, also after its end",
        )


LOCK_RULES: list[Rule] = [holding, contention, leases, no_entries, closing]
