"""Several processes on one cache: no half an answer, whoever is killed; and locks that hold."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_proxy_mw.stores._disk_sweep import OLD
from ai_proxy_mw.stores.disk_cache import DiskCache
from ai_proxy_mw.stores.guard import PATIENCE
from tests.stores.cache_nursery import KEYS, is_whole

WRITERS = 3


class Nursery:
    """Forks processes; to start each anew would take most of the time."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, "-m", "tests.stores.cache_nursery", str(directory)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str) -> int:
        assert self.process.stdin
        assert self.process.stdout
        print(what, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path)
    yield nursery
    nursery.process.stdin.close()  # type: ignore[union-attr]
    assert nursery.process.wait(60) == 0
    nursery.process.stdout.close()  # type: ignore[union-attr]


async def _read(cache: DiskCache, seconds: float) -> int:
    """Read all the time; how many values there were, each of them whole."""
    found = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for key in KEYS:
            value = await cache.get(key)
            if value is not None:
                assert is_whole(key, value), key
                found += 1
    return found


async def _kill_in_rounds(cache: DiskCache, nursery: Nursery, rounds: int) -> None:
    found = 0
    for _ in range(rounds):
        writers = [nursery.ask("write") for _ in range(WRITERS)]
        found += await _read(cache, 0.15)
        for writer in writers:
            found += await _read(cache, random.random() * 0.05)
            os.kill(writer, signal.SIGKILL)
        assert nursery.ask("wait") == WRITERS * signal.SIGKILL
    assert found > rounds * 10
    for key in KEYS:  # it works as before
        await cache.set(key, b"after", ttl=60)
        assert await cache.get(key) == b"after"


def _named(directory: Path) -> set[str]:
    with sqlite3.connect(directory / "cache.db") as database:
        names = {name for (name,) in database.execute("SELECT filename FROM Cache") if name}
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()
    return names


def _on_disk(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*.val")}


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_no_half_an_answer_whoever_is_killed(tmp_path: Path, nursery: Nursery, rounds: int) -> None:
    async def main() -> None:
        cache = DiskCache(tmp_path, timeout=20 * PATIENCE)
        try:
            await _kill_in_rounds(cache, nursery, rounds)
            # At most one for each that was killed, and none an hour later.
            assert len(_on_disk(tmp_path) - _named(tmp_path)) <= rounds * WRITERS
        finally:
            await cache.aclose()

        later = DiskCache(tmp_path, clock=lambda: time.time() + OLD + 60)
        await later.set("large", b"x" * 100_000, ttl=600)
        for _ in range(260):
            await later.set("a", b"x", ttl=600)
        assert await later.get("large") is not None
        await later.aclose()
        assert _on_disk(tmp_path) == _named(tmp_path)

    asyncio.run(main())


@pytest.mark.parametrize("times", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_of_many_processes_one_has_the_lock(tmp_path: Path, nursery: Nursery, times: int) -> None:
    for _ in range(4):
        nursery.ask(f"count {times}")
    assert nursery.ask("wait") == 0

    async def main() -> bytes | None:
        cache = DiskCache(tmp_path)
        try:
            return await cache.get("count")
        finally:
            await cache.aclose()

    assert asyncio.run(main()) == b"%d" % (4 * times)


@pytest.mark.slow
def test_a_large_purge_lets_others_write(tmp_path: Path) -> None:
    async def fill(cache: DiskCache, part: int) -> None:
        for number in range(2000):
            await cache.set(f"e:{part}:{number}", b"x" * 100, ttl=600, tags=[f"s:{number % 2}"])

    async def write(cache: DiskCache, done: asyncio.Event) -> float:
        longest = 0.0
        while not done.is_set():
            began = time.monotonic()
            await cache.set("other", b"x", ttl=600)
            longest = max(longest, time.monotonic() - began)
        return longest

    async def main() -> None:
        cache, other = DiskCache(tmp_path), DiskCache(tmp_path)
        await asyncio.gather(*[fill(cache, part) for part in range(10)])
        done = asyncio.Event()
        writing = asyncio.ensure_future(write(other, done))
        assert await cache.purge(tag="s:1") == 10_000
        done.set()
        assert await writing < PATIENCE
        assert (await cache.stats()).entries == 10_001
        await cache.aclose()
        await other.aclose()

    asyncio.run(main())
