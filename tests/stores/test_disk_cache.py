"""The cache on disk: private, bounded, purged by exact words; nothing broken comes out."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread
from typing import Any

import diskcache  # type: ignore[import-untyped]
import pytest

from ai_proxy_mw import ConfigurationError, DiskCache
from ai_proxy_mw.stores import _disk_rows, disk_cache
from ai_proxy_mw.stores._disk_sweep import OLD, Sweep
from ai_proxy_mw.stores.base import CacheStore, StoreStats

Scenario = Callable[[DiskCache], Awaitable[None]]
SMALL = bytes(range(256))
LARGE = SMALL * 200
MIB = 2**20


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def _play(directory: Path, scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        cache = DiskCache(directory, **options)
        try:
            await scenario(cache)
        finally:
            await cache.aclose()

    asyncio.run(main())


@contextmanager
def _database(directory: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(directory / "cache.db", isolation_level=None)
    yield connection
    connection.close()


def _plant(directory: Path, **columns: object) -> None:
    assignments = ", ".join(f"{name} = ?" for name in columns)
    with _database(directory) as database:
        database.execute(f"UPDATE Cache SET {assignments}", tuple(columns.values()))


def _files(directory: Path) -> list[Path]:
    return list(directory.rglob("*.val"))


async def _keys(cache: CacheStore, prefix: str = "") -> list[str]:
    return sorted([key async for key in cache.keys(prefix)])


# How it is made


def test_it_is_a_store(tmp_path: Path) -> None:
    store: CacheStore = DiskCache(tmp_path / "a", ttl=5)
    assert store.shared
    assert store.ttl == 5.0
    assert not (tmp_path / "a").exists()  # nothing is made before it is used


def test_where_a_path_leads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    cache = DiskCache("var/cache")
    monkeypatch.chdir("/")
    assert cache.directory == tmp_path / "var/cache"


@pytest.mark.parametrize("path", ["", "/", "a\0b", "/$HOME/a", b"/a", 5, None])
def test_other_paths_are_refused(path: Any) -> None:
    with pytest.raises(ConfigurationError, match="write DiskCache"):
        DiskCache(path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_bytes": MIB - 1}, "1048576 or more"),
        ({"max_bytes": 2.0**30}, "whole number"),
        ({"max_bytes": "1G"}, "whole number"),
        ({"max_bytes": True}, "whole number"),
        ({"ttl": 0}, "ttl of a cache"),
        ({"ttl": -1.5}, "above 0"),
        ({"ttl": "60"}, "above 0"),
        ({"ttl": True}, "above 0"),
        ({"ttl": float("inf")}, "above 0"),
        ({"ttl": float("nan")}, "above 0"),
        ({"timeout": 0}, "timeout of a cache"),
    ],
)
def test_other_arguments_are_refused(tmp_path: Path, options: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        DiskCache(tmp_path, **options)


def test_the_package_does_not_import_diskcache() -> None:
    code = (
        "import sys, ai_proxy_mw; assert 'diskcache' not in sys.modules; "
        "ai_proxy_mw.DiskCache('a'); assert 'diskcache' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Keeping


@pytest.mark.parametrize("value", [b"", SMALL, LARGE], ids=len)
def test_what_goes_in_comes_out(tmp_path: Path, value: bytes) -> None:
    async def scenario(cache: DiskCache) -> None:
        assert await cache.get("a") is None
        await cache.set("a", value, ttl=60)
        assert await cache.get("a") == value
        await cache.set("a", SMALL, ttl=60, tags=["t"])
        assert await cache.get("a") == SMALL
        assert _files(tmp_path) == []
        await cache.set("a", value, ttl=60)
        assert await cache.purge(tag="t") == 0
        await cache.aclose()
        assert await cache.get("a") == value

    _play(tmp_path, scenario)


def test_others_cannot_read_it(tmp_path: Path) -> None:
    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", LARGE, ttl=60)
        for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path

    mask = os.umask(0)
    try:
        _play(tmp_path / "cache", scenario)
    finally:
        os.umask(mask)


def test_what_has_run_out_is_not_there(tmp_path: Path) -> None:
    clock = Clock()

    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", LARGE, ttl=60)
        await cache.set("b", SMALL, ttl=61)
        clock.now += 60
        assert await cache.get("a") is None
        assert await cache.get("b") == SMALL
        assert await _keys(cache) == ["b"]
        assert await cache.purge() == 1

    _play(tmp_path, scenario, clock=clock)


def test_each_write_removes_some_that_have_run_out(tmp_path: Path) -> None:
    clock = Clock()

    async def scenario(cache: DiskCache) -> None:
        for number in range(15):
            await cache.set(str(number), LARGE, ttl=60)
        clock.now += 60
        for expected in (6, 1):
            await cache.set("b", SMALL, ttl=60)
            assert (await cache.stats()).entries == expected
        assert _files(tmp_path) == []

    _play(tmp_path, scenario, clock=clock)


# Its size


def _volume(directory: Path) -> int:
    return sum(path.stat().st_size for path in [directory / "cache.db", *_files(directory)])


@pytest.mark.parametrize("size", [1000, 5000, 40_000])
def test_it_does_not_outgrow_its_size(tmp_path: Path, size: int) -> None:
    clock = Clock()

    async def scenario(cache: DiskCache) -> None:
        for number in range(2 * MIB // (size + 400)):
            clock.now += 1e-3
            await cache.set(str(number), b"x" * size, ttl=3600, tags=["s:1", "e:2"])
        stats = await cache.stats()
        assert MIB / 2 < stats.size <= MIB
        assert await cache.get(str(number)) is not None
        assert await cache.get("0") is None
        await cache.aclose()
        assert _volume(tmp_path) <= MIB
        # What was stored last is what there is.
        left = sorted(int(key) for key in await _keys(cache))
        assert left == list(range(left[0], number + 1))

    _play(tmp_path, scenario, max_bytes=MIB, clock=clock)


def test_what_is_too_large_is_not_stored(tmp_path: Path) -> None:
    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", SMALL, ttl=60)
        await cache.set("a", b"x" * (MIB // 8), ttl=60)
        assert await cache.get("a") is not None
        await cache.set("a", b"x" * (MIB // 8 + 1), ttl=60)
        assert await cache.get("a") is None
        assert await cache.stats() == StoreStats(0, 0)
        assert _files(tmp_path) == []

    _play(tmp_path, scenario, max_bytes=MIB)


def test_making_room_for_one_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_disk_rows, "_EVICTED", 1)
    monkeypatch.setattr(disk_cache, "_ROUNDS", 2)

    async def scenario(cache: DiskCache) -> None:
        await cache.set("b", SMALL, ttl=60)
        for number in range(40):
            await cache.set(str(number), b"x" * 30_000, ttl=60)
        before = await _keys(cache)
        await cache.set("b", b"x" * (MIB // 8), ttl=60)
        assert await cache.get("b") is None
        assert len(await _keys(cache)) == len(before) - 2

    _play(tmp_path, scenario, max_bytes=MIB)


def test_how_much_it_holds(tmp_path: Path) -> None:
    async def scenario(cache: DiskCache) -> None:
        assert await cache.stats() == StoreStats(0, 0)
        await cache.lock("a", "me", lease=60)
        assert await cache.stats() == StoreStats(0, 0)
        await cache.set("a", LARGE, ttl=60)
        await cache.set("b", SMALL, ttl=60)
        entries, size = await cache.stats()
        assert entries == 2
        assert len(LARGE) < size < len(LARGE) + 2**17

    _play(tmp_path, scenario)


# Purging


KEYS = ["e:a:1", "e:a:2", "e:ab:1", "e:_:1", "e:%:1", "e:*:1", "e:?:1", "E:A:1", "é:1"]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("e:a:", ["e:a:1", "e:a:2"]),
        ("e:a", ["e:a:1", "e:a:2", "e:ab:1"]),
        ("e:_", ["e:_:1"]),
        ("e:%", ["e:%:1"]),
        ("e:*", ["e:*:1"]),
        ("e:?", ["e:?:1"]),
        ("e:[a]", []),
        ("é", ["é:1"]),
        ("zz", []),
        ("", KEYS),
    ],
)
def test_a_prefix_is_only_itself(tmp_path: Path, prefix: str, expected: list[str]) -> None:
    async def scenario(cache: DiskCache) -> None:
        for key in KEYS:
            await cache.set(key, SMALL, ttl=60)
        assert await _keys(cache, prefix) == sorted(expected)
        assert await cache.purge(prefix=prefix) == len(expected)
        assert await _keys(cache) == sorted(set(KEYS) - set(expected))

    _play(tmp_path, scenario)


def test_a_tag_is_only_itself(tmp_path: Path) -> None:
    tagged = {"a": ["s:1", "e:1"], "b": ["s:11", "e:1"], "c": ["s:", "s"], "d": [], "e": ["x:s:1"]}

    async def scenario(cache: DiskCache) -> None:
        for key, tags in tagged.items():
            await cache.set(key, LARGE, ttl=60, tags=tags)
        for tag in ("1", "e:", "%", "_:1", "S:1", "s:1e:1"):
            assert await cache.purge(tag=tag) == 0, tag
        assert await cache.purge(tag="s:1") == 1
        assert await cache.get("a") is None
        assert await cache.purge(prefix="c", tag="e:1") == 0
        assert await cache.purge(prefix="b", tag="e:1") == 1
        assert await cache.purge(tag="s") == 1
        assert await _keys(cache) == ["d", "e"]
        assert len(_files(tmp_path)) == 2
        with pytest.raises(ValueError, match="line ends"):
            await cache.set("a", SMALL, ttl=60, tags=["s:1\n\ns:2"])
        with pytest.raises(ValueError, match="line ends"):
            await cache.purge(tag="s:1\n\ns:2")

    _play(tmp_path, scenario)


def test_a_key_is_purged_alone(tmp_path: Path) -> None:
    async def scenario(cache: DiskCache) -> None:
        for key in ("a", "ab"):
            await cache.set(key, LARGE, ttl=60)
        assert [await cache.purge(key="a") for _ in range(2)] == [1, 0]
        assert await cache.purge(key="") == 0
        assert await _keys(cache) == ["ab"]
        assert len(_files(tmp_path)) == 1

    _play(tmp_path, scenario)


def test_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_disk_rows, "PAGE", 5)

    async def scenario(cache: DiskCache) -> None:
        keys = [f"{letter}{number}" for letter in "abc" for number in range(10)]
        for key in keys:
            await cache.set(key, SMALL, ttl=60, tags=[key[1]])
        assert [key async for key in cache.keys("")] == keys
        assert [key async for key in cache.keys("b")] == keys[10:20]
        assert await cache.purge(prefix="b") == 10
        assert await cache.purge(tag="7") == 2
        assert await cache.purge(prefix="c", tag="8") == 1
        assert await cache.purge() == 17
        assert await _keys(cache) == []

    _play(tmp_path, scenario)


def test_who_leaves_in_the_middle_of_the_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_disk_rows, "PAGE", 2)

    async def scenario(cache: DiskCache) -> None:
        for key in "abcde":
            await cache.set(key, SMALL, ttl=60)
        async for key in cache.keys():
            await cache.purge(key=key)
            if key == "c":
                break
        assert await _keys(cache) == ["d", "e"]

    _play(tmp_path, scenario)


# Locks


def test_locks(tmp_path: Path) -> None:
    clock = Clock()

    async def scenario(cache: DiskCache) -> None:
        assert await cache.lock("a", "me", lease=10) == "me"
        assert await cache.lock("a", "you", lease=10) == "me"
        assert await cache.lock("b", "you", lease=10) == "you"
        clock.now += 9
        assert await cache.lock("a", "me", lease=10) == "me"  # 10 seconds from now on
        clock.now += 9
        assert await cache.lock("a", "you", lease=10) == "me"
        clock.now += 1
        assert await cache.lock("a", "you", lease=10) == "you"
        await cache.unlock("a", "me")
        assert await cache.lock("a", "me", lease=10) == "you"
        await cache.unlock("a", "you")
        assert await cache.lock("a", "me", lease=10) == "me"

    _play(tmp_path, scenario, clock=clock)


def test_locks_are_no_entries(tmp_path: Path) -> None:
    async def scenario(cache: DiskCache) -> None:
        assert await cache.lock("a", "me", lease=10) == "me"
        assert await cache.get("a") is None
        assert await _keys(cache) == []
        assert await cache.purge() == await cache.purge(key="a") == 0
        await cache.set("a", SMALL, ttl=60)
        assert await cache.lock("a", "you", lease=10) == "me"
        await cache.unlock("a", "me")
        assert await cache.get("a") == SMALL

    _play(tmp_path, scenario)


# What broke

BOMB = b"cos\nmkdir\n(V%b\ntR."


def _trap(directory: Path) -> bytes:
    return BOMB % str(directory / "sprung").encode()


@pytest.mark.parametrize(
    "columns",
    [
        {"mode": 4, "value": BOMB},
        {"mode": 3, "value": None, "filename": "bomb"},
        {"mode": 4, "value": None, "filename": "bomb"},
        {"mode": 1, "value": "text"},
        {"mode": 1, "value": 7},
        {"mode": None},
        {"mode": 2, "value": None},
        {"mode": 2, "value": None, "filename": "../secret"},
        {"mode": 2, "value": None, "filename": b"\xff"},
    ],
    ids=str,
)
def test_a_planted_value_is_nothing_and_is_removed(
    tmp_path: Path, columns: dict[str, object]
) -> None:
    directory = tmp_path / "cache"

    async def scenario(cache: DiskCache) -> None:
        (tmp_path / "secret").write_bytes(SMALL)
        await cache.set("a", SMALL, ttl=60)
        (directory / "bomb").write_bytes(_trap(tmp_path))
        planted = {name: _trap(tmp_path) if it == BOMB else it for name, it in columns.items()}
        _plant(directory, **planted)
        assert await cache.get("a") is None
        assert await cache.stats() == StoreStats(0, 0)
        assert (tmp_path / "secret").exists()
        await cache.set("a", SMALL, ttl=60)
        _plant(directory, **planted)
        await cache.set("a", SMALL, ttl=60)  # in the place of a broken one
        assert await cache.get("a") == SMALL

    _play(directory, scenario)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("raw", [0, 1])
def test_a_planted_key_or_tag_is_never_unpickled(tmp_path: Path, raw: int) -> None:
    directory = tmp_path / "cache"

    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", SMALL, ttl=60, tags=["t"])
        _plant(directory, raw=raw, key=_trap(tmp_path), tag=_trap(tmp_path))
        await cache.set("b", SMALL, ttl=60, tags=["t"])
        assert await _keys(cache) == ["b"]
        assert await cache.get("a") is None
        assert await cache.purge(tag="t") == 1

    _play(directory, scenario)
    assert not (tmp_path / "sprung").exists()
    with diskcache.Cache(str(directory)) as naive:  # it would have gone off
        if not raw:
            list(naive)
    assert (tmp_path / "sprung").exists() is not bool(raw)


def test_a_key_that_is_no_text_ends_nothing(tmp_path: Path) -> None:
    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", SMALL, ttl=60)
        with _database(tmp_path) as database:
            database.execute("UPDATE Cache SET key = CAST(x'62ff' AS TEXT)")
        await cache.set("z", SMALL, ttl=60)
        assert await _keys(cache) == ["b\ufffd", "z"]
        assert await cache.purge() == 2

    _play(tmp_path, scenario)


def _cut(path: Path) -> None:
    path.write_bytes(LARGE[:-1])


def _lengthen(path: Path) -> None:
    path.write_bytes(LARGE + b"x")


def _link(path: Path) -> None:
    (path.parent / "secret").write_bytes(LARGE)
    path.unlink()
    path.symlink_to(path.parent / "secret")


def _nest(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [Path.unlink, _cut, _lengthen, _link, _nest, _pipe])
def test_a_value_file_that_is_not_as_it_was_is_nothing(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", LARGE, ttl=60)
        spoil(_files(tmp_path)[0])
        assert await cache.get("a") is None
        assert await cache.stats() == StoreStats(0, 0)
        await cache.set("a", LARGE, ttl=60)
        assert await cache.get("a") == LARGE

    _play(tmp_path, scenario)


def test_a_file_that_is_cut_while_it_is_read_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", LARGE, ttl=60)
        real = os.fstat

        def cuts(descriptor: int) -> os.stat_result:
            found = real(descriptor)
            os.truncate(_files(tmp_path)[0], 10)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(os, "fstat", cuts)
            assert await cache.get("a") is None

    _play(tmp_path, scenario)


def test_too_many_open_files_are_an_error_and_the_value_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", LARGE, ttl=60)
        real = os.open

        def fails(path: Any, *arguments: Any) -> int:
            if str(path).endswith(".val"):
                raise OSError(24, "Too many open files")
            return real(path, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", fails)
            with pytest.raises(OSError, match="Too many"):
                await cache.get("a")
        assert await cache.get("a") == LARGE

    _play(tmp_path, scenario)


@pytest.mark.parametrize("times", [1, 9])
def test_a_value_that_is_replaced_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Its file is gone, but there is another; not for ever, if it happens each time."""
    real = _disk_rows._value
    left = [times]

    def replaced(cache: Any, *held: Any) -> bytes | None:
        if left[0]:
            left[0] -= 1
            item = _disk_rows.Item("a", LARGE, time.time() + 60, "")
            _disk_rows.put(cache, item, time.time(), MIB)
        return real(cache, *held)

    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", LARGE, ttl=60)
        monkeypatch.setattr(_disk_rows, "_value", replaced)
        assert await cache.get("a") == (LARGE if times == 1 else None)
        monkeypatch.undo()
        assert await cache.get("a") == LARGE

    _play(tmp_path, scenario)


@pytest.mark.parametrize("value", [SMALL * 100, LARGE], ids=len)
def test_a_full_disk_spoils_nothing_and_leaves_no_file(tmp_path: Path, value: bytes) -> None:
    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", SMALL, ttl=60)
        full = "PRAGMA max_page_count = 1"
        await cache._worker.run(lambda inner: _disk_rows.execute(inner, full))
        key = "k" * 5000  # takes a page of its own
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await cache.set(key, value, ttl=60)
        assert _files(tmp_path) == []
        assert await cache.get("a") == SMALL
        await cache.set("a", value, ttl=60)
        assert await cache.get("a") == value

    _play(tmp_path, scenario)


def test_a_file_that_does_not_fit_spoils_nothing(tmp_path: Path) -> None:
    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", SMALL, ttl=60)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        try:
            with pytest.raises(OSError, match="large"):
                await cache.set("a", LARGE, ttl=60)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert _files(tmp_path) == []
        assert await cache.get("a") == SMALL

    _play(tmp_path, scenario)


def test_a_locked_database_is_an_error_in_time_and_leaves_no_file(tmp_path: Path) -> None:
    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", SMALL, ttl=60)
        with _database(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(diskcache.Timeout):
                await cache.set("a", LARGE, ttl=60)
            assert await cache.get("a") == SMALL  # reading waits for nobody
            assert _files(tmp_path) == []
            other.execute("ROLLBACK")

    _play(tmp_path, scenario, timeout=0.05)


def test_a_broken_database_is_an_error_until_it_is_removed(tmp_path: Path) -> None:
    database = tmp_path / "cache.db"

    async def scenario(cache: DiskCache) -> None:
        for _ in range(2):
            with pytest.raises(sqlite3.DatabaseError, match="not a database"):
                await cache.get("a")
        database.unlink()
        await cache.set("a", SMALL, ttl=60)
        assert await cache.get("a") == SMALL

    database.write_bytes(b"no database at all" * 1000)
    _play(tmp_path, scenario)


# The event loop


def test_all_work_is_done_by_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    executed, opened = _disk_rows.execute, os.open

    def execute(cache: Any, *arguments: Any) -> list[Any]:
        threads.add(current_thread().name)
        return executed(cache, *arguments)

    def opens(*arguments: Any, **options: Any) -> int:
        threads.add(current_thread().name)
        return opened(*arguments, **options)

    monkeypatch.setattr(_disk_rows, "execute", execute)
    monkeypatch.setattr(os, "open", opens)

    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", LARGE, ttl=60)
        assert await cache.get("a") == LARGE
        assert await _keys(cache) == ["a"]
        assert await cache.purge() == 1
        await cache.stats()
        assert len(threads) == 1
        assert threads.pop().startswith("ai_proxy_mw-disk")

    _play(tmp_path, scenario)


def test_the_loop_goes_on_while_the_database_is_locked(tmp_path: Path) -> None:
    async def scenario(cache: DiskCache) -> None:
        await cache.set("a", SMALL, ttl=60)
        with _database(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = [
                asyncio.ensure_future(cache.set("a", LARGE, ttl=60)),
                asyncio.ensure_future(cache.get("a")),
            ]
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not any(future.done() for future in waiting)
            other.execute("COMMIT")
        assert await asyncio.gather(*waiting) == [None, LARGE]

    _play(tmp_path, scenario, timeout=30)


@pytest.mark.slow
def test_no_step_of_the_loop_takes_a_millisecond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the processor's time: how late it is by the clock says more about the machine."""
    steps: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        steps.append(time.thread_time() - began)

    async def work(cache: DiskCache, part: int, end: float) -> None:
        number = 0
        while time.monotonic() < end:
            number += 1
            key = f"{part}:{number % 50}"
            if number % 3:
                await cache.get(key)
            else:
                await cache.set(key, b"x" * (100_000 if number % 2 else 1000), ttl=60)

    async def scenario(cache: DiskCache) -> None:
        await cache.get("a")
        monkeypatch.setattr(asyncio.Handle, "_run", timed)
        await asyncio.gather(*[work(cache, part, time.monotonic() + 5) for part in range(32)])
        monkeypatch.undo()

    gc.disable()
    try:
        _play(tmp_path, scenario)
    finally:
        gc.enable()
    assert len(steps) > 5000
    assert sum(step > 0.001 for step in steps) <= len(steps) // 5000


# What killed processes leave


def _orphan(directory: Path, folder: str, age: float) -> Path:
    path = directory / folder / "cd" / f"{folder * 14}.val"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(LARGE)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_files_that_no_row_names_are_removed_when_they_are_old(tmp_path: Path) -> None:
    clock = Clock()

    async def scenario(cache: DiskCache) -> None:
        await cache.set("kept", LARGE, ttl=10 * OLD)
        (kept,) = _files(tmp_path)
        os.utime(kept, (0, 0))
        old = [_orphan(tmp_path, f"{number:02x}", OLD + 60) for number in range(10)]
        new = _orphan(tmp_path, "ff", OLD - 60)
        others = [tmp_path / "ff" / "cd" / name for name in ("other.txt", "other.val")]
        for other in others:
            other.write_bytes(b"")
            os.utime(other, (0, 0))
        (tmp_path / "gg").mkdir()
        clock.now += OLD
        os.utime(new, (clock.now - OLD + 60,) * 2)
        for _ in range(14):
            await cache.set("a", SMALL, ttl=60)
        assert not any(path.exists() for path in old)
        assert new.exists()
        assert await cache.get("kept") == LARGE
        clock.now += 120
        for _ in range(14):
            await cache.set("a", SMALL, ttl=60)
        assert new.exists()  # the next look is an hour after the last
        clock.now += OLD
        for _ in range(14):
            await cache.set("a", SMALL, ttl=60)
        assert not new.exists()
        assert all(other.exists() for other in others)

    _play(tmp_path, scenario, clock=clock)


def test_a_file_that_goes_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _orphan(tmp_path, "ab", 2 * OLD)
    real = os.walk

    def walks(top: Path) -> Any:
        found = list(real(top))
        path.unlink()
        return found

    monkeypatch.setattr(os, "walk", walks)
    with diskcache.Cache(tmp_path) as cache:
        sweep = Sweep()
        sweep.step(cache, time.time())
        sweep.step(cache, time.time())
    assert not path.exists()


def test_what_comes_when_no_thread_takes_work_any_more_is_done_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*args: Any) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    async def scenario(cache: DiskCache) -> None:
        monkeypatch.setattr(ThreadPoolExecutor, "submit", ends)
        await cache.set("key", SMALL, ttl=60)
        assert await cache.get("key") == SMALL
        with pytest.raises(RuntimeError, match="no job"):
            await cache._worker.run(fails)

    def fails(cache: Any) -> None:
        raise RuntimeError("no job of ours")

    _play(tmp_path, scenario)
