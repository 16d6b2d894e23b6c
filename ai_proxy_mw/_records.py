"""Puts together who is told of the calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ai_proxy_mw.metrics.desk import Desk

if TYPE_CHECKING:
    from ai_proxy_mw.metrics.base import RecordHook, Tracing


def desk_of(on_record: Iterable[RecordHook], *, tracing: Tracing | None) -> Desk | None:
    """Where the records are handed out; None where nobody wants any."""
    hooks = tuple(on_record)
    if not hooks and tracing is None:
        return None
    return Desk(hooks, tracing=tracing)
