"""Hooks that are slow, that fail, that hang: no call knows of it, and what is lost is counted."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ai_proxy_mw import ConfigurationError, Record
from ai_proxy_mw.metrics import outlet as module
from ai_proxy_mw.metrics.desk import Desk
from ai_proxy_mw.metrics.outlet import HookStats, TaskOutlet, ThreadOutlet, outlet_of


def record(number: int = 1) -> Record:
    return Record(time=float(number), request_id=str(number))


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_thread_gets_all_of_them_in_their_order() -> None:
    got: list[Record] = []
    threads: set[int] = set()

    def hook(record: Record) -> None:
        threads.add(threading.get_ident())
        got.append(record)

    outlet = ThreadOutlet("hook", hook)
    for number in range(500):
        outlet.put(record(number))
    until(lambda: len(got) == 500)
    outlet.put(record(500))  # the thread has gone to sleep, and wakes again
    until(lambda: len(got) == 501)
    until(lambda: outlet.waiting == 0)
    assert [each.request_id for each in got] == [str(number) for number in range(501)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert outlet.stats == HookStats("hook", 501, 0, 0, 0)


def test_a_slow_hook_loses_what_there_is_no_room_for(caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()
    got: list[Record] = []

    def hook(record: Record) -> None:
        go.wait(10)
        got.append(record)

    outlet = ThreadOutlet("slow", hook, most=10)
    outlet.put(record())
    until(lambda: outlet._is_busy)
    for number in range(15):
        outlet.put(record(number))
    assert (outlet.lost, outlet.waiting) == (5, 11)
    assert [each.message for each in caplog.records] == [
        "the hook slow is too slow: records are lost"
    ]
    go.set()
    until(lambda: outlet.waiting == 0)
    assert (outlet.delivered, len(got)) == (11, 11)


def test_a_hook_that_fails_is_logged_once_and_gets_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fails = True

    def hook(record: Record) -> None:
        if fails:
            raise SystemExit("that ends no thread of ours")

    outlet = ThreadOutlet("bad", hook)
    outlet.put(record())
    outlet.put(record())
    until(lambda: outlet.delivered == 2)
    fails = False
    outlet.put(record())
    until(lambda: outlet.delivered == 3)
    fails = True
    outlet.put(record())
    until(lambda: outlet.delivered == 4)
    assert (outlet.failed, outlet.lost) == (3, 0)
    assert [each.levelno for each in caplog.records] == [logging.ERROR] * 2
    assert "that ends no thread" in caplog.text


def test_closing_waits_a_moment_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_WITHIN", 0.1)
    go = threading.Event()
    outlet = ThreadOutlet("hangs", lambda _: go.wait(10))
    outlet.put(record())
    outlet.put(record())
    until(lambda: outlet._is_busy)
    asyncio.run(outlet.aclose())
    assert outlet.lost == 1
    go.set()
    until(lambda: outlet.waiting == 0)
    outlet.put(record())
    asyncio.run(outlet.aclose())  # without waiting for more of them to come together
    assert (outlet.delivered, outlet.lost) == (2, 1)


def test_several_that_hang_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_WITHIN", 0.2)
    go = threading.Event()
    outlets = [ThreadOutlet(f"hangs {number}", lambda _: go.wait(10)) for number in range(5)]
    desk = Desk([outlet.put for outlet in outlets], outlets)
    for outlet in outlets:
        outlet.put(record())
    until(lambda: all(outlet._is_busy for outlet in outlets))
    began = time.monotonic()
    asyncio.run(desk.aclose())
    assert time.monotonic() - began < 0.8
    go.set()


def test_where_no_thread_can_be_started_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    got: list[Record] = []
    outlet = ThreadOutlet("late", got.append)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        outlet.put(record(1))
        assert outlet.waiting == 1
    outlet.put(record(2))
    until(lambda: len(got) == 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_has_its_own_thread_and_none_of_the_parents_records() -> None:
    reading, writing = os.pipe()
    go = threading.Event()

    def hook(record: Record) -> None:
        if os.getpid() == parent:
            go.wait(10)
        else:
            os.write(writing, record.request_id.encode())

    parent = os.getpid()
    outlet = ThreadOutlet("hook", hook)
    outlet.put(record(1))
    until(lambda: outlet._is_busy)
    outlet.put(record(2))
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        outlet.put(record(3))
        deadline = time.monotonic() + 10
        while outlet.delivered == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        os._exit(0 if outlet.lost == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    go.set()
    assert os.read(reading, 10) == b"3"
    until(lambda: outlet.waiting == 0)
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_counts_only_its_own() -> None:
    async def hook(record: Record) -> None:
        await asyncio.Event().wait()

    outlet = TaskOutlet("hook", hook, most=1)

    async def main() -> None:
        outlet.put(record())
        outlet.put(record())

    asyncio.run(main())
    outlet.delivered = outlet.failed = 1
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        os._exit(outlet.stats != HookStats("hook", 0, 0, 0, 0))
    assert os.waitpid(child, 0)[1] == 0
    assert outlet.lost == 2


def _run(main: Any) -> None:
    asyncio.run(main())


def test_a_coroutine_function_runs_in_the_loop_of_the_calls() -> None:
    async def main() -> None:
        got: list[int] = []
        here = threading.get_ident()

        async def hook(record: Record) -> None:
            await asyncio.sleep(0)
            assert threading.get_ident() == here
            got.append(int(record.request_id))

        outlet = TaskOutlet("hook", hook)
        for number in range(3):
            outlet.put(record(number))
        assert (outlet.waiting, got) == (3, [])
        await outlet.aclose()
        assert (outlet.waiting, got) == (0, [0, 1, 2])
        outlet.put(record(3))
        await outlet.aclose()
        assert got == [0, 1, 2, 3]
        await outlet.aclose()
        assert outlet.stats == HookStats("hook", 4, 0, 0, 0)

    _run(main)


def test_one_that_is_slow_or_fails(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_WITHIN", 0.05)

    async def main() -> None:
        async def hook(record: Record) -> None:
            if record.request_id == "0":
                raise ValueError("no")
            await asyncio.sleep(100)

        outlet = TaskOutlet("hook", hook, most=2)
        for number in range(5):
            outlet.put(record(number))
        assert (outlet.lost, outlet.waiting) == (3, 2)
        await asyncio.sleep(0.01)
        assert (outlet.failed, outlet.waiting) == (1, 1)
        await outlet.aclose()
        assert (outlet.delivered, outlet.lost, outlet.waiting) == (1, 4, 0)

    _run(main)
    assert "the hook hook has failed" in caplog.text


@pytest.mark.parametrize("error", [SystemExit("no"), asyncio.CancelledError(), ValueError()])
def test_whatever_a_coroutine_raises_the_next_record_is_given(error: BaseException) -> None:
    async def main() -> None:
        async def hook(record: Record) -> None:
            if record.request_id == "0":
                raise error

        outlet = TaskOutlet("hook", hook)
        for number in range(3):
            outlet.put(record(number))
        await outlet.aclose()
        assert outlet.stats == HookStats("hook", 3, 1, 0, 0)

    _run(main)


def test_the_lines_of_loops_that_are_over_are_forgotten() -> None:
    async def hook(record: Record) -> None:
        await asyncio.Event().wait()

    outlet = TaskOutlet("hook", hook)

    async def main(number: int = 1) -> None:
        for _ in range(number):
            outlet.put(record())
        await asyncio.sleep(0)

    asyncio.run(main(3))
    asyncio.run(main())
    assert len(outlet._lines) == 1
    assert (outlet.delivered, outlet.lost, outlet.waiting) == (0, 4, 0)


class _Hook:
    def __call__(self, record: Record) -> None:
        pass


class _AsyncHook:
    async def __call__(self, record: Record) -> None:
        pass


async def _hook(record: Record, more: int = 1) -> None:
    pass


def test_which_outlet_a_hook_has() -> None:
    assert type(outlet_of(_Hook())) is ThreadOutlet
    assert type(outlet_of(print)) is ThreadOutlet
    assert type(outlet_of([].append)) is ThreadOutlet
    assert type(outlet_of(_AsyncHook())) is TaskOutlet
    assert type(outlet_of(_hook)) is TaskOutlet
    assert type(outlet_of(partial(_hook, more=2))) is TaskOutlet
    assert [outlet_of(each).name for each in (_Hook(), _hook)] == ["_Hook", "_hook"]
    with pytest.raises(ConfigurationError, match="functions that take a Record"):
        outlet_of("print")
