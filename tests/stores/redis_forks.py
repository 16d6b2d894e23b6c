"""A parent and its children that use one cache at the same time: `redis_forks.py URL`."""

from __future__ import annotations

import asyncio
import os
import sys

from ai_proxy_mw import RedisCache


async def use(cache: RedisCache, who: str) -> None:
    """Each answer is of the key that was asked for."""
    for number in range(200):
        key = f"{who}:{number % 7}"
        await cache.set(key, key.encode(), ttl=60)
        assert await cache.get(key) == key.encode()


def main(url: str) -> int:
    cache = RedisCache(url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(use(cache, "before"))
    children = []
    for number in range(3):
        pid = os.fork()
        if not pid:
            asyncio.run(use(cache, f"child{number}"))
            os._exit(0)
        children.append(pid)
    loop.run_until_complete(use(cache, "parent"))
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    loop.run_until_complete(use(cache, "parent"))
    loop.run_until_complete(cache.aclose())
    loop.close()
    return sum(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
