"""Removes the files of processes that were killed before a row named them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from random import shuffle
from typing import Any

from ai_proxy_mw.stores._disk_rows import execute, remove_files

OLD = 3600.0
"""Seconds after which nobody is about to name a file any more."""

_FOLDER = re.compile("[0-9a-f]{2}")


class Sweep:
    """Looks into one of the (at most 256) folders at each step, into all of them once in OLD.

    Not for several threads. Who is killed leaves one file at most, and each process begins with
    another folder, so that few files are left over even where none lives for long.
    """

    def __init__(self) -> None:
        self._folders: list[str] = []
        self._again_at = 0.0

    def step(self, cache: Any, now: float) -> None:
        if self._folders:
            _sweep(cache, self._folders.pop(), now - OLD)
        elif now >= self._again_at:
            self._again_at = now + OLD
            names = [path.name for path in Path(cache.directory).iterdir()]
            self._folders = [name for name in names if _FOLDER.fullmatch(name)]
            shuffle(self._folders)


def _sweep(cache: Any, folder: str, before: float) -> None:
    root = Path(cache.directory)
    for path in _files(root / folder):
        name = str(path.relative_to(root))
        if _is_older(path, before) and not _is_named(cache, name):
            remove_files(cache, [(0, name)])


def _files(folder: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(folder):
        yield from (Path(directory, name) for name in names if name.endswith(".val"))


def _is_older(path: Path, moment: float) -> bool:
    try:
        return path.lstat().st_mtime < moment
    except FileNotFoundError:
        return False  # another process was first


def _is_named(cache: Any, name: str) -> bool:
    return bool(execute(cache, "SELECT 1 FROM Cache WHERE filename = ? LIMIT 1", name))
