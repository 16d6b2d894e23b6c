"""Locks in a table of their own, beside the rows of a `diskcache`: no key is ever one of them."""

from __future__ import annotations

from typing import Any

from ai_proxy_mw.stores._disk_rows import execute


def prepare(cache: Any) -> None:
    execute(
        cache,
        "CREATE TABLE IF NOT EXISTS Locks"
        " (name TEXT PRIMARY KEY, owner TEXT NOT NULL, due REAL NOT NULL) WITHOUT ROWID",
    )
    execute(cache, "CREATE INDEX IF NOT EXISTS Locks_due ON Locks (due)")


def lock(cache: Any, name: str, owner: str, now: float, due: float) -> str:
    """Hold it until `due` (seconds since the epoch) unless another does; who holds it now."""
    with cache.transact():
        execute(cache, "DELETE FROM Locks WHERE due <= ?", now)
        execute(
            cache,
            "INSERT INTO Locks VALUES (?, ?, ?) ON CONFLICT (name)"
            " DO UPDATE SET due = excluded.due WHERE owner = excluded.owner",
            *(name, owner, due),
        )
        return str(execute(cache, "SELECT owner FROM Locks WHERE name = ?", name)[0][0])


def unlock(cache: Any, name: str, owner: str) -> None:
    """Let go of it, if it is this owner's."""
    with cache.transact():
        execute(cache, "DELETE FROM Locks WHERE name = ? AND owner = ?", name, owner)
