"""Jobs on the rows of a `diskcache`, for the cache of answers.

diskcache makes the tables, the transactions and the files. Its own `get` and `set` are not used:
they do not notice a file that was cut short, leave the file of a transaction that failed behind,
and make room by a number of rows, however small they are beside what is to be stored.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple

PAGE = 200
"""Rows that one job looks at, so that no other job and no other process waits long for it."""

_EXPIRED = 10
"""Expired rows that each write removes: more than come, so that what has expired runs out."""

_EVICTED = 100
"""Rows that one job removes at most to make room."""

_ROW = 512
"""Bytes that a row takes beside its value: key, tags, and its places in four indexes."""

_ATTEMPTS = 5
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO}
_END = "\n"

Name = object
"""What a row says of its file; anything, where somebody else wrote it."""


class Item(NamedTuple):
    """What is to be stored, until `due` (seconds since the epoch)."""

    key: str
    value: bytes
    due: float
    tag: str


class Page(NamedTuple):
    """What was found, and where the next page begins; None at the end."""

    keys: list[str]
    cursor: bytes | None
    removed: int = 0


def joined(tags: Iterable[str]) -> str:
    """Several tags as one, in which each has its own ends. Raises ValueError."""
    return "".join(sought(tag) for tag in tags)


def sought(tag: str) -> str:
    """A tag as it stands among others; nothing for none. Raises ValueError."""
    if _END in tag:
        raise ValueError("a tag has no line ends")
    return f"{_END}{tag}{_END}" if tag else ""


def execute(cache: Any, statement: str, *values: object) -> list[Any]:
    rows: list[Any] = cache._sql(statement, values).fetchall()  # noqa: SLF001 - there is no other
    return rows


def prepare(cache: Any) -> None:
    """What a sweep needs to find the row of a file."""
    execute(
        cache,
        "CREATE INDEX IF NOT EXISTS Cache_filename ON Cache (filename) WHERE filename IS NOT NULL",
    )


# Reading


def get(cache: Any, key: str, now: float) -> bytes | None:
    """A value; a row that is broken is removed."""
    for _ in range(_ATTEMPTS):
        rows = execute(
            cache,
            "SELECT size, mode, filename, value, rowid, store_time FROM Cache"
            " WHERE key = ? AND raw = 1 AND expire_time > ?",
            key,
            now,
        )
        if not rows:
            return None
        *held, rowid, stored = rows[0]
        value = _value(cache, *held)
        if value is not None:
            return value
        if _remove_version(cache, rowid, stored, held[2]):
            return None
        # Another process has put another in its place since it was looked up.
    return None


def _value(cache: Any, size: object, mode: int, filename: Name, value: object) -> bytes | None:
    """None where it is not there or not what was stored."""
    try:
        found = cache.disk.fetch(mode, filename, value, True)
    except sqlite3.DatabaseError:
        return None
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        return None
    if isinstance(found, int | bytes):
        return found if isinstance(found, bytes) else None
    with found:
        return _whole(found, size)


def _whole(file: BinaryIO, size: object) -> bytes | None:
    if os.fstat(file.fileno()).st_size != size:
        return None
    value = file.read()
    return value if len(value) == size else None


def page(cache: Any, cursor: bytes, prefix: str, now: float) -> Page:
    """The keys of some rows from `cursor` on that begin with `prefix`, in order."""
    rows, following = _page(cache, cursor, prefix, "", now)
    return Page([key.decode("utf-8", "replace") for _, _, live, _, key in rows if live], following)


def _page(
    cache: Any, cursor: bytes, prefix: str, tag: str, now: float
) -> tuple[list[tuple[int, Name, int, int, bytes]], bytes | None]:
    """Rows as id, file name, whether it is live, whether it has the tag, and key.

    A range of the index, so nothing in a prefix has a meaning of its own. Keys come as bytes,
    since what was planted need not be text.
    """
    rows = execute(
        cache,
        "SELECT rowid, filename, expire_time > ?, ? = '' OR ifnull(instr(tag, ?), 0) > 0,"
        " CAST(key AS BLOB) FROM Cache"
        " WHERE key >= +CAST(? AS TEXT) AND typeof(key) = 'text' AND raw = 1"
        " ORDER BY key LIMIT ?",
        now,
        tag,
        tag,
        cursor,
        PAGE,
    )
    start = prefix.encode()
    found = [row for row in rows if row[4].startswith(start)]
    # Behind a key comes itself with a NUL.
    return found, found[-1][4] + b"\0" if len(found) == PAGE else None


# Writing


def put(cache: Any, item: Item, now: float, max_bytes: int) -> bool:
    """Store it if there is room; whether it was. Otherwise some room has been made."""
    missing = _missing(cache, item, max_bytes)
    if missing > 0:
        _evict(cache, missing + max_bytes // 64)
        if _missing(cache, item, max_bytes) > 0:
            return False
    _store(cache, item, now)
    return True


def _missing(cache: Any, item: Item, max_bytes: int) -> int:
    return int(cache.volume()) + len(item.value) + _ROW - max_bytes


def _store(cache: Any, item: Item, now: float) -> None:
    size, mode, filename, value = cache.disk.store(item.value, False)
    try:
        with cache.transact():
            gone = _named(cache, item.key, now)
            expired = execute(
                cache,
                "SELECT rowid, filename FROM Cache WHERE expire_time <= ?"
                " ORDER BY expire_time LIMIT ?",
                now,
                _EXPIRED,
            )
            gone += expired
            _delete(cache, expired)
            execute(
                cache,
                "INSERT INTO Cache (key, raw, store_time, expire_time, access_time, tag, size,"
                " mode, filename, value) VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (key, raw) DO UPDATE SET store_time = excluded.store_time,"
                " expire_time = excluded.expire_time, access_time = excluded.access_time,"
                " tag = excluded.tag, size = excluded.size, mode = excluded.mode,"
                " filename = excluded.filename, value = excluded.value",
                *(item.key, now, item.due, now, item.tag, size, mode, filename, value),
            )
    except BaseException:
        remove_files(cache, [(0, filename)])
        raise
    remove_files(cache, gone)


def _named(cache: Any, key: str, now: float) -> list[Any]:
    return execute(
        cache,
        "SELECT rowid, filename, expire_time > ? FROM Cache WHERE key = ? AND raw = 1",
        now,
        key,
    )


def _evict(cache: Any, size: int) -> None:
    """Remove the rows that were stored first, until about `size` bytes are free."""
    with cache.transact():
        rows = execute(
            cache,
            "SELECT rowid, filename, ifnull(size, 0) + ifnull(length(value), 0) FROM Cache"
            " ORDER BY store_time LIMIT ?",
            _EVICTED,
        )
        chosen = []
        for row in rows:
            if size <= 0:
                break
            chosen.append(row)
            size -= row[2] + _ROW
        _delete(cache, chosen)
    remove_files(cache, chosen)


def remove(cache: Any, key: str, now: float) -> int:
    """Remove a key; 1 if it was there and had not expired."""
    with cache.transact():
        rows = _named(cache, key, now)
        _delete(cache, rows)
    remove_files(cache, rows)
    return sum(row[2] for row in rows)


def purge(cache: Any, cursor: bytes, prefix: str, tag: str, now: float) -> Page:
    """Of one page, remove the rows that have the tag (as `sought`)."""
    rows, following = _page(cache, cursor, prefix, tag, now)
    if not any(row[3] for row in rows):  # nobody has to wait for this
        return Page([], following)
    with cache.transact():
        rows, following = _page(cache, cursor, prefix, tag, now)
        chosen = [row for row in rows if row[3]]
        _delete(cache, chosen)
    remove_files(cache, chosen)
    return Page([], following, sum(row[2] for row in chosen))


def _remove_version(cache: Any, rowid: int, stored: object, filename: Name) -> bool:
    """Remove a row unless it has changed; whether it was."""
    with cache.transact():
        rows = execute(
            cache,
            "SELECT rowid, filename FROM Cache"
            " WHERE rowid = ? AND store_time IS ? AND filename IS ?",
            rowid,
            stored,
            filename,
        )
        _delete(cache, rows)
    remove_files(cache, rows)
    return bool(rows)


def _delete(cache: Any, rows: Iterable[Any]) -> None:
    for row in rows:
        execute(cache, "DELETE FROM Cache WHERE rowid = ?", row[0])


def remove_files(cache: Any, rows: Iterable[Any]) -> None:
    """Remove the files of rows (their ids and file names)."""
    for row in rows:
        if row[1] is not None:
            try:
                cache.disk.remove(row[1])
            except sqlite3.DatabaseError:
                pass  # the name leads elsewhere: what is there is none of ours
