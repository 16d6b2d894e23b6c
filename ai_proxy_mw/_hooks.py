"""Functions of the app, sync or async, called where they do not hold up the event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request

T = TypeVar("T")

Hook = Callable[["Request", Any], Awaitable[Any]]
"""Calls the function with what is given; the request says where plain functions run."""


def hook(function: Callable[[Any], Any], name: str) -> Hook:
    """The function, to be awaited. `name` is the argument that it was given as."""
    if is_async(function):
        return lambda _, given: _awaited(function(given), name)

    async def call(request: Request, given: object) -> Any:
        answer = await request.run_sync(partial(_call, function, given, name))
        if inspect.isawaitable(answer):  # a plain function that hands out a coroutine
            answer = await _awaited(answer, name)
        return answer

    return call


def is_async(function: Any) -> bool:
    """Whether what a function gives is to be awaited."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - whether its instances are awaited
    )


async def _awaited(answer: Awaitable[T], name: str) -> T:
    try:
        return await answer
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # It waited for something that was cancelled; nobody has cancelled the call.
        raise RuntimeError(f"{name} raised CancelledError") from error


def _call(function: Callable[[Any], T], given: object, name: str) -> T:
    try:
        return function(given)
    except (StopIteration, asyncio.CancelledError) as error:
        # A future cannot hold the one, so whoever waits for it would wait for ever; and the other
        # would be taken for a cancellation of the call.
        raise RuntimeError(f"{name} raised {type(error).__name__}") from error
