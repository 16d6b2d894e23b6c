"""The storages under test, and a clock to move."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import limits.aio.storage.memory as reference
import pytest

from ai_proxy_mw.stores.disk_limits import DiskStorage
from ai_proxy_mw.stores.local import LocalStorage

KINDS = ["local", "disk", "reference"]


class Clock:
    """Starts ahead of the machine's, by which files are cleared, at a whole year of `limits`."""

    YEAR = 360 * 24 * 3600

    def __init__(self) -> None:
        self.now = float((time.time() // self.YEAR + 1) * self.YEAR)

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


@asynccontextmanager
async def opened(kind: str, clock: Clock, directory: Path) -> AsyncIterator[Any]:
    """Yields the storage; what it holds is given back."""
    if kind == "local":
        yield LocalStorage(clock=clock)
    elif kind == "disk":
        disk = DiskStorage(f"disk://{directory}", timeout=30, clock=clock)
        try:
            yield disk
        finally:
            await disk.aclose()
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference, "time", SimpleNamespace(time=clock))
            yield reference.MemoryStorage()
