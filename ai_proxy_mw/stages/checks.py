"""Asks the app's own checks: guardrails, redaction, a system prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ai_proxy_mw._hooks import hook
from ai_proxy_mw.schema.call import Call
from ai_proxy_mw.schema.doubles import refuse_doubles

if TYPE_CHECKING:
    from ai_proxy_mw._checks import Check
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._types import Handler
    from ai_proxy_mw.schema.reader import Reader


class ChecksStage:
    """Each check sees what the one before it has made of the call."""

    def __init__(self, checks: Iterable[Check], reader: Reader | None) -> None:
        self._checks = [hook(check, "checks=") for check in checks]
        self._reader = reader

    async def __call__(self, request: Request, handler: Handler) -> Response:
        if request.call is not None:
            request.call = await self._checked(request, request.call)
        return await handler(request)

    async def _checked(self, request: Request, call: Call) -> Call:
        given = call
        if self._reader is None:
            refuse_doubles(call.body())  # as the reader has done for who has one
        for check in self._checks:
            answer = await check(request, call)
            if answer is None:
                continue
            if not isinstance(answer, Call):
                raise TypeError(f"a check returned {type(answer).__name__}: write a Call or None")
            call = answer
        if call is not given and self._reader is not None:
            # What goes upstream is judged, whoever wrote it; and what it holds may be another.
            judged = self._reader.read(call.endpoint, call.body())
            call.media, call.pictures = judged.media, judged.pictures
        return call
