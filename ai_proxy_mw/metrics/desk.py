"""Where the notes of calls are begun, and their records handed to those who want them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ai_proxy_mw.accounting.note import Note, NoteOfBodies
from ai_proxy_mw.metrics.harmless import begun

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw.accounting.record import Record
    from ai_proxy_mw.metrics.base import Tracing
    from ai_proxy_mw.metrics.outlet import HookStats, Outlet

Take = Callable[["Record"], None]


class Desk:
    """What a proxy knows of those who want to know of its calls.

    takers: are called with each record, in the event loop; they must be quick and never raise.
    outlets: those of them that hand it on later.
    tracing: follows each call from its beginning.
    body_bytes: how much of what was said goes into the records, of each body.
    """

    def __init__(
        self,
        takers: Sequence[Take],
        outlets: Sequence[Outlet] = (),
        *,
        tracing: Tracing | None = None,
        body_bytes: int = 0,
    ) -> None:
        self._put = takers[0] if len(takers) == 1 else partial(_to_all, takers)
        self._outlets = outlets
        self._tracing = tracing
        self._body_bytes = body_bytes

    def note(self, request: Request) -> Note:
        """The note of a call that has just come."""
        most = self._body_bytes
        note = NoteOfBodies(self._put, most) if most else Note(self._put)
        if self._tracing is not None:
            note.span = begun(self._tracing, request)
        return note

    @property
    def stats(self) -> list[HookStats]:
        """What has become of the records, for each hook."""
        return [outlet.stats for outlet in self._outlets]

    async def aclose(self) -> None:
        """Wait a moment for the hooks, so that little is lost."""
        # All at once: the end of the process waits no longer for several that hang than for one.
        await asyncio.gather(*(outlet.aclose() for outlet in self._outlets))


def _to_all(takers: Sequence[Take], record: Record) -> None:
    for take in takers:
        take(record)
