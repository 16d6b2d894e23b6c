"""A process that counts calls until its input ends: `stats_worker.py STORE LEDGER FLUSH`.

STORE is a directory or a URL. Each call is first written into the ledger, as the time of a clock
that all processes share.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time

from ai_proxy_mw import CacheStore, DiskCache, RedisCache
from ai_proxy_mw.metrics.stats import Stats
from tests.metrics.calls import call

TIME = struct.Struct("d")


def opened(where: str) -> CacheStore:
    return RedisCache(where) if "://" in where else DiskCache(where)


async def main(where: str, ledger: str, flush: str) -> None:
    store = opened(where)
    stats = Stats(name="app", store=store, flush=float(flush))
    file = os.open(ledger, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    print("ready", flush=True)
    number = 0
    while not ended.done():
        for _ in range(5):
            number += 1
            os.write(file, TIME.pack(time.monotonic()))
            stats.add(call(subject=f"s{number % 20}", model=f"m{number % 3}"))
        await asyncio.sleep(0.002)
    await stats.aclose()
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
