"""Takes a note of each call, for those who want to know what has become of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._types import Handler
    from ai_proxy_mw.metrics.desk import Desk


class RecordStage:
    """The door says when the call is over."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, request: Request, handler: Handler) -> Response:
        note = request.note
        if note is None:  # else the process stops, and the call has come here before
            note = request.note = self._desk.note(request)
        response = await handler(request)
        note.answered(response.status)
        response.observers.append(note)
        return response
