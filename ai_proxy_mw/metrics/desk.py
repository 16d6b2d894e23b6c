"""Where the notes of calls are begun, and their records handed to those who want them."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.accounting.note import Note, NoteOfBodies
from ai_proxy_mw.metrics.outlet import HookStats, Outlet, TaskOutlet, ThreadOutlet

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw.accounting.record import Record
    from ai_proxy_mw.metrics.base import RecordHook, Tracing

logger = logging.getLogger("ai_proxy_mw")


class Desk:
    """What a proxy knows of those who want to know of its calls.

    hooks: called with each record, later and elsewhere.
    at_once: functions that are called in the event loop; they must be quick and never raise.
    tracing: traces each call from its beginning.
    body_bytes: how much of what was said goes into the records, of each body.
    """

    def __init__(
        self,
        hooks: Iterable[RecordHook] = (),
        *,
        at_once: Iterable[Callable[[Record], None]] = (),
        tracing: Tracing | None = None,
        body_bytes: int = 0,
    ) -> None:
        self.outlets = [_outlet(hook) for hook in hooks]
        takers = [*at_once, *(outlet.put for outlet in self.outlets)]
        self._put = takers[0] if len(takers) == 1 else functools.partial(_to_all, takers)
        self._tracing = tracing
        self._body_bytes = body_bytes

    def note(self, request: Request) -> Note:
        """The note of a call that has just come."""
        most = self._body_bytes
        note = NoteOfBodies(self._put, most) if most else Note(self._put)
        if self._tracing is not None:
            note.span = self._tracing.begin(request)
        return note

    @property
    def stats(self) -> list[HookStats]:
        """What has become of the records, for each hook."""
        return [outlet.stats for outlet in self.outlets]

    async def aclose(self) -> None:
        """Wait a moment for the hooks, so that little is lost."""
        for outlet in self.outlets:
            await outlet.aclose()


def _to_all(takers: list[Callable[[Record], None]], record: Record) -> None:
    for take in takers:
        take(record)


def _outlet(hook: Any) -> Outlet:
    if not callable(hook):
        raise ConfigurationError(f"on_record={hook!r}: write functions that take a Record")
    name = getattr(hook, "__name__", type(hook).__name__)
    call = hook if inspect.isroutine(hook) else hook.__call__
    if inspect.iscoroutinefunction(inspect.unwrap(call)):
        return TaskOutlet(name, hook)
    return ThreadOutlet(name, hook)
