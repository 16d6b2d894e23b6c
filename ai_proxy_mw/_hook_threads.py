"""The threads in which code of the app runs that may block."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

HOOK_THREADS = 64
"""At once: they wait for databases, and the loop's own few threads are for short work."""


@cache
def hook_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(HOOK_THREADS, "ai_proxy_mw-hook")


# Threads do not survive a fork.
os.register_at_fork(after_in_child=hook_threads.cache_clear)
