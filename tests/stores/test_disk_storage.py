"""What only the counts on disk promise: private, bounded, and an error where something broke."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import enumerate as threads
from typing import Any

import diskcache  # type: ignore[import-untyped]
import pytest
from limits.errors import StorageError
from limits.storage import storage_from_string

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.stores import _disk_worker
from ai_proxy_mw.stores.disk_limits import DiskStorage
from tests.stores.storages import Clock

Scenario = Callable[[DiskStorage], Awaitable[None]]


def _play(directory: Path, scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        storage = DiskStorage(f"disk://{directory}", **options)
        try:
            await scenario(storage)
        finally:
            await storage.aclose()

    asyncio.run(main())


def _workers() -> list[str]:
    return [thread.name for thread in threads() if thread.name.startswith("ai_proxy_mw-disk")]


def _wait_until_no_worker() -> None:
    deadline = time.monotonic() + 30
    while _workers():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def _database(directory: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(directory / "cache.db", isolation_level=None)
    yield connection
    connection.close()


# The URI


@pytest.mark.parametrize(
    ("uri", "directory"),
    [
        ("disk:///var/lib/app/limits", "/var/lib/app/limits"),
        ("async+disk:///var/lib/app/limits/", "/var/lib/app/limits"),
        ("disk://var/limits", "HERE/var/limits"),
        ("disk://limits", "HERE/limits"),
        ("disk:///a%20b%23c", "/a b#c"),
    ],
)
def test_where_a_uri_leads(uri: str, directory: str, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    storage = DiskStorage(uri)
    assert str(storage.directory) == directory.replace("HERE", str(tmp_path))
    assert list(tmp_path.iterdir()) == []  # nothing is made before it is used


@pytest.mark.parametrize(
    "uri",
    [
        "disk://",
        "disk:///",
        "disk:/var/limits",
        "disk:limits",
        "disk:///a?mode=ro",
        "disk:///a#b",
        "disk:///$HOME/limits",
        "disk:///a%24b",
        "disk:///a%00b",
        "redis://localhost",
        "/var/limits",
        "",
    ],
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="write disk:///var/lib/app/limits"):
        DiskStorage(uri)


def test_it_is_on_the_list_of_limits(tmp_path: Path) -> None:
    storage = storage_from_string(f"async+disk://{tmp_path}/limits", timeout=1.0)
    assert isinstance(storage, DiskStorage)
    assert storage.directory == tmp_path / "limits"


# Who may read it


def _files(directory: Path) -> dict[str, int]:
    return {path.name: _mode(path) for path in directory.iterdir()}


@pytest.mark.parametrize("exists", [False, True])
def test_others_cannot_read_it(tmp_path: Path, exists: bool) -> None:
    directory = tmp_path / "limits"
    mask = os.umask(0)
    try:
        if exists:
            directory.mkdir(mode=0o755)

        async def scenario(storage: DiskStorage) -> None:
            await storage.incr("a", 60)
            assert await storage.acquire_entry("a", 10_000, 60, amount=10_000)
            names = ("cache.db", "cache.db-wal", "cache.db-shm")
            assert _files(directory) == dict.fromkeys(names, 0o600)

        _play(directory, scenario)
    finally:
        os.umask(mask)
    assert _mode(directory) == (0o755 if exists else 0o700)


def test_two_that_begin_together_make_one_file(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"of the first")
    _disk_worker._create_private(path)
    assert path.read_bytes() == b"of the first"
    assert list(tmp_path.iterdir()) == [path]


# How much it holds


def test_expired_keys_are_removed(tmp_path: Path) -> None:
    async def scenario(storage: DiskStorage) -> None:
        for number in range(300):
            await storage.incr(f"k{number}", 1)
        assert await storage._worker.run(len) <= 2

    _play(tmp_path, scenario, clock=lambda: time.time() - 100)


def test_the_file_is_bounded(tmp_path: Path) -> None:
    async def scenario(storage: DiskStorage) -> None:
        for number in range(1500):
            await storage.incr(f"{number}:" + "x" * 2000, 3600)
        assert await storage.get("1499:" + "x" * 2000) == 1
        assert await storage.get("0:" + "x" * 2000) == 0

    _play(tmp_path, scenario, size_limit=2**20)
    assert (tmp_path / "cache.db").stat().st_size < 1.2 * 2**20


def test_a_moving_window_keeps_no_more_than_the_limit(tmp_path: Path) -> None:
    clock = Clock()

    async def scenario(storage: DiskStorage) -> None:
        for _ in range(50):
            clock.move(4)
            await storage.acquire_entry("a", 5, 10)
        value = await storage._worker.run(lambda cache: cache.get("m:a"))
        assert len(value) <= 8 * 5

    _play(tmp_path, scenario, clock=clock)


# What broke


def test_counts_outlive_the_process(tmp_path: Path) -> None:
    async def count(storage: DiskStorage) -> None:
        await storage.incr("a", 3600)

    for _ in range(3):
        _play(tmp_path, count)

    async def look(storage: DiskStorage) -> None:
        assert await storage.get("a") == 3

    _play(tmp_path, look)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_locked_file_is_an_error_in_time(tmp_path: Path, wrapped: bool) -> None:
    async def scenario(storage: DiskStorage) -> None:
        await storage.incr("a", 60)
        with _database(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError if wrapped else diskcache.Timeout):
                await storage.incr("a", 60)
            assert await storage.get("a") == 1  # reading waits for nobody
            assert not await storage.check()
            other.execute("ROLLBACK")
        assert await storage.check()
        assert await storage.incr("a", 60) == 2

    _play(tmp_path, scenario, timeout=0.05, wrap_exceptions=wrapped)


def test_a_file_that_is_locked_from_the_start_is_an_error_in_time(tmp_path: Path) -> None:
    async def make(storage: DiskStorage) -> None:
        assert await storage.check()

    async def scenario(storage: DiskStorage) -> None:
        with _database(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                await storage.incr("a", 60)
            assert time.monotonic() - began < 20  # diskcache itself would try for 60
            other.execute("ROLLBACK")
        assert await storage.incr("a", 60) == 1

    _play(tmp_path, make)
    _play(tmp_path, scenario, timeout=0.05)


def test_a_full_disk_is_an_error_and_spoils_nothing(tmp_path: Path) -> None:
    async def scenario(storage: DiskStorage) -> None:
        assert await storage.acquire_entry("m", 100_000, 3600, amount=10)
        await storage._worker.run(lambda cache: cache._sql("PRAGMA max_page_count = 1"))
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await storage.acquire_entry("m", 100_000, 3600, amount=50_000)
        assert (await storage.get_moving_window("m", 100_000, 3600))[1] == 10
        assert await storage.acquire_entry("m", 100_000, 3600, amount=50_000)

    _play(tmp_path, scenario)


def test_a_broken_file_is_an_error_until_it_is_removed(tmp_path: Path) -> None:
    database = tmp_path / "cache.db"

    async def scenario(storage: DiskStorage) -> None:
        for _ in range(2):
            with pytest.raises(sqlite3.DatabaseError, match="not a database"):
                await storage.incr("a", 60)
        assert not await storage.check()
        database.unlink()
        assert await storage.incr("a", 60) == 1

    database.write_bytes(b"no database at all" * 1000)
    _play(tmp_path, scenario)


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    async def scenario(storage: DiskStorage) -> None:
        with pytest.raises(OSError, match="file"):
            await storage.get("a")
        assert not await storage.check()

    _play(tmp_path / "file" / "limits", scenario)


@pytest.mark.parametrize("value", [b"\x01\x02\x03", 7, b"", b"x" * 24])
def test_a_malformed_count_is_an_error(tmp_path: Path, value: bytes | int) -> None:
    async def scenario(storage: DiskStorage) -> None:
        def plant(cache: Any) -> None:
            for key in ("c:a", "m:a", "s:60:a"):
                cache.set(key, value, expire=60)

        await storage._worker.run(plant)
        asked: list[tuple[bool, Callable[[], Awaitable[object]]]] = [
            (type(value) is int, lambda: storage.get("a")),
            (type(value) is int, lambda: storage.incr("a", 60)),
            (type(value) is bytes and len(value) != 3, lambda: storage.acquire_entry("a", 9, 60)),
            (
                type(value) is bytes and len(value) == 24,
                lambda: storage.get_sliding_window("a", 60),
            ),
        ]
        for is_well, ask in asked:
            if is_well:
                await ask()
            else:
                with pytest.raises(sqlite3.DatabaseError, match="malformed"):
                    await ask()

    _play(tmp_path, scenario)


def test_a_planted_pickle_is_not_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    directory = tmp_path / "limits"
    bomb = b"cos\nmkdir\n(V" + str(trap).encode() + b"\ntR."

    async def plant(storage: DiskStorage) -> None:
        await storage.incr("a", 3600)
        await storage.acquire_entry("a", 5, 3600)
        await storage.acquire_sliding_window_entry("a", 5, 3600)

    async def ask(storage: DiskStorage) -> None:
        asked: list[Callable[[], Awaitable[object]]] = [
            lambda: storage.get("a"),
            lambda: storage.incr("a", 3600),
            lambda: storage.decr("a"),
            lambda: storage.get_expiry("a"),
            lambda: storage.acquire_entry("a", 5, 3600),
            lambda: storage.get_moving_window("a", 5, 3600),
            lambda: storage.acquire_sliding_window_entry("a", 5, 3600),
            lambda: storage.get_sliding_window("a", 3600),
        ]
        for question in asked:
            with pytest.raises(sqlite3.DatabaseError, match="neither a number nor bytes"):
                await question()
        await storage.clear("a")
        assert await storage.incr("a", 3600) == 1

    _play(directory, plant)
    with _database(directory) as database:
        database.execute("UPDATE Cache SET mode = 4, value = ?", (bomb,))
    _play(directory, ask)
    assert not trap.exists()
    with diskcache.Cache(str(directory)) as naive:  # it would have gone off
        naive.get("s:3600:a")
    assert trap.exists()


# The thread


def test_the_thread_comes_with_use_and_goes_with_aclose(tmp_path: Path) -> None:
    async def main() -> None:
        storage = DiskStorage(f"disk://{tmp_path}")
        await storage.aclose()
        assert _workers() == []
        for expected in (1, 2):
            assert await storage.incr("a", 60) == expected
            assert len(_workers()) == 1
            await storage.aclose()
            _wait_until_no_worker()
        await storage.aclose()

    asyncio.run(main())


def test_event_loops_share_it(tmp_path: Path) -> None:
    storage = DiskStorage(f"disk://{tmp_path}")
    assert asyncio.run(storage.incr("a", 60)) == 1
    assert asyncio.run(storage.incr("a", 60)) == 2
    asyncio.run(storage.aclose())


def test_a_caller_that_leaves_spoils_nothing(tmp_path: Path) -> None:
    async def scenario(storage: DiskStorage) -> None:
        await storage.incr("a", 60)
        with _database(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await storage.incr("a", 60)
            waiting = asyncio.ensure_future(storage.incr("a", 60))
            other.execute("ROLLBACK")
        # What had begun is done, though nobody waits for it.
        assert await waiting == 3

    _play(tmp_path, scenario, timeout=30)


def test_after_a_fork_it_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(storage: DiskStorage) -> None:
        assert await storage.incr("a", 60) == 1
        parents = storage._worker._desk
        assert parents is not None
        process = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: process + 1)
        assert await storage.incr("a", 60) == 2
        assert storage._worker._desk is not parents
        await storage.aclose()
        monkeypatch.undo()
        await storage.aclose()
        assert _disk_worker._inherited.pop() is not None
        await asyncio.wrap_future(parents.end())
        _wait_until_no_worker()

    _play(tmp_path, scenario)


def test_no_job_is_at_work_while_the_process_forks(tmp_path: Path) -> None:
    """What a child does after one in the midst is in test_disk_processes."""

    async def main() -> None:
        storage = DiskStorage(f"disk://{tmp_path}/limits")
        assert await storage.incr("k", 60) == 1
        _disk_worker._fork.begin()
        counting = asyncio.ensure_future(storage.incr("k", 60))
        done, _ = await asyncio.wait([counting], timeout=0.05)
        assert not done
        _disk_worker._fork.end()
        assert await counting == 2
        await storage.aclose()

    asyncio.run(main())
