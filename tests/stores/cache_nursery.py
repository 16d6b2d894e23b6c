"""Processes that work on a cache on disk: `cache_nursery.py DIRECTORY`.

Reads lines. "write" forks a child that writes until it is killed, "count TIMES" one that counts
under a lock; the child's id is printed. "wait" waits for all children.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from hashlib import sha256

import ai_proxy_mw.stores._disk_worker  # noqa: F401 - once, and not again in each child
from ai_proxy_mw.stores.disk_cache import DiskCache
from ai_proxy_mw.stores.guard import PATIENCE

KEYS = [f"e:a:{number}" for number in range(40)]
SIZES = (100, 5000, 40_000, 120_000)


def sealed(key: str, body: bytes) -> bytes:
    return sha256(key.encode() + body).digest() + body


def is_whole(key: str, value: bytes) -> bool:
    return sealed(key, value[32:]) == value


async def write(cache: DiskCache) -> None:
    while True:
        key = random.choice(KEYS)
        if random.random() < 0.02:
            await cache.purge(tag=key)
        body = os.urandom(random.choice(SIZES))
        await cache.set(key, sealed(key, body), ttl=600, tags=[key, "all"])


async def count(cache: DiskCache, times: int) -> None:
    me = str(os.getpid())
    for _ in range(times):
        while await cache.lock("count", me, lease=60) != me:
            await asyncio.sleep(0.001)
        found = int(await cache.get("count") or b"0")
        await cache.set("count", b"%d" % (found + 1), ttl=600)
        await cache.unlock("count", me)


def child(directory: str, what: str, times: str = "") -> None:
    cache = DiskCache(directory, timeout=20 * PATIENCE)
    asyncio.run(count(cache, int(times)) if what == "count" else write(cache))


def main(directory: str) -> None:
    children: list[int] = []
    for line in sys.stdin:
        if line == "wait\n":
            print(sum(os.waitpid(pid, 0)[1] for pid in children), flush=True)
            children.clear()
            continue
        pid = os.fork()
        if not pid:
            child(directory, *line.split())
            os._exit(0)
        children.append(pid)
        print(pid, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
