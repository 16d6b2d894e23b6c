"""A worker process that counts on a storage on disk: `hammer.py URI WHAT TIMES`.

Says "ready", waits for a line, and ends with the number of hits that were admitted.
"""

from __future__ import annotations

import asyncio
import os
import sys
from threading import Thread

from limits import RateLimitItemPerYear
from limits.aio.strategies import STRATEGIES

from ai_proxy_mw.stores.disk_limits import DiskStorage

LIMIT = 100
PATIENCE = 60.0


async def hit(storage: DiskStorage, strategy: str, times: int) -> int:
    limiter = STRATEGIES[strategy](storage)  # type: ignore[abstract]
    item = RateLimitItemPerYear(LIMIT)
    return sum([await limiter.hit(item, "me") for _ in range(times)])


async def count(storage: DiskStorage, key: str, times: int) -> int:
    for _ in range(times):
        await storage.incr(key, 3600)
    return times


def fork(storage: DiskStorage, times: int) -> int:
    """Children are forked while the parent is counting, and count too."""
    parent = Thread(target=lambda: asyncio.run(count(storage, "parent", 10 * times)))
    asyncio.run(count(storage, "before", 1))
    parent.start()
    children = []
    for _ in range(3):
        pid = os.fork()
        if not pid:
            asyncio.run(count(storage, "child", times))
            asyncio.run(storage.aclose())
            os._exit(0)
        children.append(pid)
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    parent.join()
    return sum(codes)


def main(uri: str, what: str, times: int) -> int:
    storage = DiskStorage(uri, timeout=PATIENCE)
    print("ready", flush=True)
    sys.stdin.readline()
    if what == "fork":
        result = fork(storage, times)
    elif what in STRATEGIES:
        result = asyncio.run(hit(storage, what, times))
    else:
        result = asyncio.run(count(storage, what, times))
    asyncio.run(storage.aclose())
    return result


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2], int(sys.argv[3])), flush=True)
