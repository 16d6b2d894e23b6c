"""A worker process that takes from one limit as fast as it can; prints how often it got in.

Arguments: storage URI, strategy, attempts.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from ai_proxy_mw import Limit
from ai_proxy_mw.limiting.books import Books


async def hammer(uri: str, strategy: Any, attempts: int) -> int:
    limit = Limit("100/hour", strategy=strategy)
    books = Books(uri)
    ledger = books.here().ledger

    async def take() -> bool:
        taken, _ = await ledger.take(limit, "everybody", 1)
        return taken is not None

    admitted = 0
    for _ in range(attempts // 20):
        admitted += sum(await asyncio.gather(*[take() for _ in range(20)]))
    await books.aclose()
    return admitted


if __name__ == "__main__":
    print(asyncio.run(hammer(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
