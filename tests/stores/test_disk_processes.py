"""Several processes on one directory: exact together, and none harmed by the end of another."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from limits.aio.strategies import STRATEGIES

from ai_proxy_mw.stores.disk_limits import DiskStorage
from tests.stores.hammer import LIMIT, PATIENCE

pytestmark = pytest.mark.slow

Start = Callable[[str, int], "subprocess.Popen[str]"]

HOLD = """
import sys
from ai_proxy_mw.stores.disk_limits import DiskStorage
import asyncio

def job(cache):
    with cache.transact():
        cache.incr("c:k", 1000)
        print("holding", flush=True)
        sys.stdin.readline()

asyncio.run(DiskStorage(sys.argv[1])._worker.run(job))
"""


FORK_AMID = """
import asyncio, os, sys, threading
from ai_proxy_mw.stores.disk_limits import DiskStorage

storage = DiskStorage(sys.argv[1])
begun = threading.Event()

def job(cache):
    with cache.transact():
        cache.incr("c:k", 1, 0)
        begun.set()
        threading.Event().wait(0.3)  # long enough for the fork to be asked for

parent = threading.Thread(target=lambda: asyncio.run(storage._worker.run(job)))
parent.start()
begun.wait()
pid = os.fork()
if not pid:
    asyncio.run(storage.incr("k", 3600))
    os._exit(0)
parent.join()
print(os.waitpid(pid, 0)[1], asyncio.run(storage.incr("k", 3600)), flush=True)
"""


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"disk://{tmp_path}/limits"


@pytest.fixture
def start(uri: str) -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def begin(what: str, times: int) -> subprocess.Popen[str]:
        command = ["-c", HOLD, uri] if what == "hold" else _hammer(uri, what, times)
        process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout
        assert process.stdout.readline().strip() in ("ready", "holding")
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def _hammer(uri: str, what: str, times: int) -> list[str]:
    return ["-m", "tests.stores.hammer", uri, what, str(times)]


def _go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()


def _result(process: subprocess.Popen[str]) -> int:
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return int(out)


def _get(uri: str, key: str) -> int:
    async def ask() -> int:
        storage = DiskStorage(uri, timeout=PATIENCE)
        try:
            return await storage.get(key)
        finally:
            await storage.aclose()

    return asyncio.run(ask())


def _wait_for(uri: str, key: str, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while _get(uri, key) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_exactly_the_limit_is_admitted(start: Start, strategy: str) -> None:
    workers = [start(strategy, 100) for _ in range(4)]
    _go(*workers)
    admitted = [_result(worker) for worker in workers]
    assert sum(admitted) == LIMIT, admitted


def test_no_count_is_lost(start: Start, uri: str) -> None:
    workers = [start("k", 200) for _ in range(4)]
    _go(*workers)
    assert [_result(worker) for worker in workers] == [200] * 4
    assert _get(uri, "k") == 800


def test_the_others_go_on_when_one_is_killed(start: Start, uri: str) -> None:
    workers = [start("k", 500) for _ in range(2)]
    victims = [start(f"victim{number}", 10**9) for number in range(3)]
    _go(*workers, *victims)
    for number, victim in enumerate(victims):
        _wait_for(uri, f"victim{number}", 20 * (number + 1))
        victim.kill()
        victim.wait()
    assert [_result(worker) for worker in workers] == [500] * 2
    assert _get(uri, "k") == 1000
    assert all(_get(uri, f"victim{number}") >= 20 for number in range(3))


def test_who_is_killed_with_the_lock_does_not_keep_it(start: Start, uri: str) -> None:
    first = start("k", 5)
    _go(first)
    assert _result(first) == 5
    holder = start("hold", 0)
    next_ = start("k", 7)
    _go(next_)
    with pytest.raises(subprocess.TimeoutExpired):
        next_.wait(0.3)  # it has to wait
    holder.kill()
    assert _result(next_) == 7
    assert _get(uri, "k") == 12


def test_children_of_a_process_that_counts(start: Start, uri: str) -> None:
    parent = start("fork", 100)
    _go(parent)
    assert _result(parent) == 0
    counts = [_get(uri, key) for key in ("before", "parent", "child")]
    assert counts == [1, 1000, 300]


def test_a_child_forked_in_the_middle_of_a_transaction_can_count(uri: str) -> None:
    command = [sys.executable, "-c", FORK_AMID, uri]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split() == ["0", "2"], done.stderr
