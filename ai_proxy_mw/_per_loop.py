"""One of something for each event loop that runs."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Made when it is first asked for in a loop; those of closed loops are then forgotten."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._those: dict[AbstractEventLoop, T] = {}

    def here(self) -> T:
        """That of the running loop."""
        loop = get_running_loop()
        found = self._those.get(loop)
        if found is None:
            running = {known: one for known, one in self._those.items() if not known.is_closed()}
            found = self._make()
            # In one step: other threads look into it meanwhile.
            self._those = {**running, loop: found}
        return found

    def pop(self) -> T | None:
        """That of the running loop, which is then forgotten."""
        return self._those.pop(get_running_loop(), None)

    def clear(self) -> None:
        self._those = {}

    def __len__(self) -> int:
        return len(self._those)
