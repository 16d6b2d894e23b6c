"""A `diskcache` that keeps nothing but whole numbers and bytes, under keys that are text.

diskcache pickles what SQLite cannot hold, and unpickles what a row says is a pickle: whoever can
write the file can run code (CVE-2025-69872). Here a row that says so is an error.
"""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from typing import Any, BinaryIO

from diskcache import Disk  # type: ignore[import-untyped]
from diskcache.core import MODE_BINARY, MODE_RAW  # type: ignore[import-untyped]

_FILE = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}\.val")
_ATTEMPTS = 10


class BytesDisk(Disk):  # type: ignore[misc]
    """Give it to a `diskcache.Cache` as `disk=BytesDisk`.

    Large bytes are kept in files of their own, which only their owner may read.

    Keys and values of other types raise TypeError or ValueError when they are stored;
    what could not have been stored so raises sqlite3.DatabaseError when it is read.
    """

    def put(self, key: object) -> tuple[str, bool]:
        """A key as it stands in the database."""
        if type(key) is not str:
            raise TypeError(f"keys are str, not {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> str:
        """A key from the database."""
        if not raw or type(key) is not str:
            raise sqlite3.DatabaseError("a key in the store is not text")
        return key

    def store(
        self,
        value: object,
        read: bool,
        key: object = None,  # noqa: ARG002 - diskcache passes it
    ) -> tuple[int, int, str | None, int | bytes | None]:
        """A value as size, mode, file name and what stands in the database."""
        if read:
            raise TypeError("files are not taken, only bytes")
        if type(value) is int:
            if not -(2**63) <= value < 2**63:
                raise ValueError("whole numbers have at most 64 bits")
            return 0, MODE_RAW, None, value
        if type(value) is not bytes:
            raise TypeError(f"values are int or bytes, not {type(value).__name__}")
        if len(value) < self.min_file_size:
            return 0, MODE_RAW, None, value
        name, path = self.filename()
        _write(Path(path), value)
        return len(value), MODE_BINARY, name, None

    def fetch(self, mode: int, filename: object, value: object, read: bool) -> Any:
        """A value, or with `read` an open file of one that is in a file."""
        if mode == MODE_RAW and type(value) in (int, bytes):
            return value
        if mode != MODE_BINARY:
            raise sqlite3.DatabaseError("a value in the store is neither a number nor bytes")
        file = _existing(self._path(filename))
        if read:
            return file
        with file:
            return file.read()

    def remove(self, file_path: object) -> None:
        """Remove a value's file, if it is one."""
        self._path(file_path)
        super().remove(file_path)

    def _path(self, name: object) -> Path:
        # A row's file name may lead anywhere; those that are made here have one form.
        if not isinstance(name, str) or not _FILE.fullmatch(name):
            raise sqlite3.DatabaseError("a file name in the store is none of its own")
        return Path(self._directory, name)


def _existing(path: Path) -> BinaryIO:
    # Neither a link that leads elsewhere, nor a pipe that waits for somebody to write.
    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)

    return open(path, "rb", opener=opener)


def _write(path: Path, value: bytes) -> None:
    with _create(path) as file:
        try:
            file.write(value)
            file.flush()
        except OSError:  # the disk is full: no half a file stays behind
            path.unlink()
            raise


def _create(path: Path) -> BinaryIO:
    for _ in range(_ATTEMPTS - 1):
        try:
            return _opened(path)
        except FileNotFoundError:
            pass  # another process has just removed the directory, which was empty
    return _opened(path)


def _opened(path: Path) -> BinaryIO:
    for folder in (path.parent.parent, path.parent):  # with `parents`, the first has another mode
        folder.mkdir(mode=0o700, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
