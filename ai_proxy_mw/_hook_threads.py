"""The threads in which code of the app runs that may block."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")

HOOK_THREADS = 64
"""At once: they wait for databases, and the loop's own few threads are for short work."""


@cache
def hook_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(HOOK_THREADS, "ai_proxy_mw-hook")


async def run_sync(function: Callable[[], T], /) -> T:
    """Run a blocking function in a thread, with the caller's context variables."""
    # Not thread_sensitive: that would make one slow function hold up all others.
    from asgiref.sync import sync_to_async  # noqa: PLC0415 - 20 ms of import, seldom needed

    return await sync_to_async(function, thread_sensitive=False, executor=hook_threads())()


# Threads do not survive a fork.
os.register_at_fork(after_in_child=hook_threads.cache_clear)
