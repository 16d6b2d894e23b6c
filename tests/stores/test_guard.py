"""A store that does not answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

import pytest

from ai_proxy_mw.stores import guard as guard_module
from ai_proxy_mw.stores.guard import Guard, StoreDown


class Store:
    def __init__(self) -> None:
        self.down = False
        self.asked = 0

    async def answer(self) -> str:
        self.asked += 1
        if self.down:
            raise OSError("redis://user:hunter2@host is down")
        return "yes"


def test_while_it_is_down_it_is_asked_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    store = Store()
    guard = Guard("limits", lambda: now)

    async def ask() -> bool:
        try:
            return await guard.ask(store.answer) == "yes"
        except StoreDown:
            return False

    async def main() -> None:
        nonlocal now
        assert await ask()
        assert [guard.is_open] == [False]
        store.down = True
        assert not await ask()
        assert [guard.is_open] == [True]
        pauses = []
        for _ in range(8):
            asked = store.asked
            for _ in range(100):
                assert not await ask()
            assert store.asked == asked  # nobody asks within the pause
            start = now
            while store.asked == asked:
                now += 0.25
                await ask()
            pauses.append(now - start)
        assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
        store.down = False
        now += 10.0
        assert await ask()
        assert [guard.is_open] == [False]
        assert await ask()

    with caplog.at_level(logging.WARNING, "ai_proxy_mw"):
        asyncio.run(main())
    assert [record.message for record in caplog.records] == [
        "limits: the store does not answer: OSError",
        "limits: the store answers again",
    ]
    assert "hunter2" not in caplog.text
    assert guard.failures == 9


def test_only_one_call_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    store = Store()
    store.down = True
    guard = Guard("limits", lambda: now)

    async def slow() -> str:
        store.asked += 1
        await asyncio.sleep(0)
        return "yes"

    async def main() -> None:
        nonlocal now
        with pytest.raises(StoreDown):
            await guard.ask(store.answer)
        now = 1.0
        answers = await asyncio.gather(
            *[guard.ask(slow) for _ in range(20)], return_exceptions=True
        )
        assert answers.count("yes") == 1
        assert store.asked == 2

    asyncio.run(main())


def test_all_that_ask_when_it_goes_down_fail_once() -> None:
    now = 0.0
    guard = Guard("limits", lambda: now)
    gone = asyncio.Event()

    async def down() -> None:
        await gone.wait()
        raise OSError

    async def main() -> None:
        nonlocal now
        asking = [asyncio.create_task(guard.ask(down)) for _ in range(200)]
        await asyncio.sleep(0)
        gone.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(answer, StoreDown) for answer in answers)
        assert guard.failures == 200
        now = guard_module.FIRST_PAUSE  # no longer, however many there were
        await guard.ask(lambda: asyncio.sleep(0))

    asyncio.run(main())
    assert not guard.is_open


def test_an_answer_to_an_earlier_question_does_not_end_an_incident() -> None:
    guard = Guard("limits", lambda: 0.0)
    store = Store()
    answered = asyncio.Event()

    async def main() -> None:
        earlier = asyncio.create_task(guard.ask(answered.wait))
        await asyncio.sleep(0)
        store.down = True
        with pytest.raises(StoreDown):
            await guard.ask(store.answer)
        answered.set()
        assert await earlier

    asyncio.run(main())
    assert guard.is_open


def test_its_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "PATIENCE", 0.02)

    def silent() -> Awaitable[None]:
        return asyncio.Event().wait()  # type: ignore[return-value]

    async def main() -> None:
        with pytest.raises(StoreDown):
            await Guard("limits").ask(silent)

    asyncio.run(main())


def test_a_caller_that_leaves_is_no_failure() -> None:
    guard = Guard("limits")

    async def main() -> None:
        task = asyncio.create_task(guard.ask(asyncio.Event().wait))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not guard.is_open
