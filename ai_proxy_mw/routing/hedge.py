"""Asks a second time beside the first, where the first says nothing for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar


class Answered(Protocol):
    @property
    def good(self) -> bool: ...


S = TypeVar("S", bound=Answered)

Ask = Callable[[], Awaitable[S]]


async def first_good(
    first: Ask[S], second: Ask[S], *, after: float, lost: Callable[[S], Awaitable[None]]
) -> S:
    """The first good answer of the two; where there is none, that of the one that failed last.

    after: seconds that the first has for itself. lost: is given the answer that nobody needs. Who
    has not answered by then is cancelled.
    """
    tasks: list[asyncio.Future[S]] = [asyncio.ensure_future(first())]
    try:
        await asyncio.wait(tasks, timeout=after)
        if not tasks[0].done():
            tasks.append(asyncio.ensure_future(second()))
        winner = await _winner(tasks)
    except BaseException:
        await _end(tasks, lost)
        raise
    try:
        await _end([task for task in tasks if task is not winner], lost)
    except BaseException:
        await _end([winner], lost)  # now nobody waits for that, either
        raise
    return winner.result()


async def _winner(tasks: list[asyncio.Future[S]]) -> asyncio.Future[S]:
    pending = set(tasks)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task in done and (task.exception() is not None or task.result().good):
                return task  # what is raised is no failure of an upstream, but the call's end
        if not pending:
            return done.pop()


async def _end(tasks: list[asyncio.Future[S]], lost: Callable[[S], Awaitable[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        # Who is cancelled once more leaves at once; what was asked is let go of all the same.
        await asyncio.shield(asyncio.ensure_future(_clear(tasks, lost)))


async def _clear(tasks: list[asyncio.Future[S]], lost: Callable[[S], Awaitable[None]]) -> None:
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is None:
            await lost(task.result())
