"""Lets in as many calls as there are places, has some wait, and turns away the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw._errors import ClientGone, Overloaded

if TYPE_CHECKING:
    from ai_proxy_mw._ahead import Ahead
    from ai_proxy_mw._http import Ending, Request, Response
    from ai_proxy_mw._types import Handler
    from ai_proxy_mw.routing.gate import Gate, Places


class ShedStage:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __call__(self, request: Request, handler: Handler) -> Response:
        places = self._gate.here()
        ahead = None if places.try_enter() else await self._wait(places, request)
        try:
            response = await handler(request)
        except BaseException:
            places.leave()
            raise
        finally:
            if ahead is not None:
                ahead.stop()
        response.observers.append(_Leave(places))
        return response

    async def _wait(self, places: Places, request: Request) -> Ahead | None:
        """Wait for a place, unless the caller leaves first."""
        turn = places.line_up(request.subject)
        if turn is None:
            raise Overloaded(self._gate.retry_after)
        # Under WSGI the server's socket tells; to read there would occupy the worker's thread.
        ahead = None if request.scope is None else request.body.take_ahead(turn.give_up)
        entered = False
        try:
            entered = await turn.wait()
        finally:
            if ahead is not None and not entered:
                ahead.stop()
        if entered:
            return ahead
        if ahead is not None and ahead.gone:
            raise ClientGone
        raise Overloaded(self._gate.retry_after)


class _Leave:
    """Watches an answer, and frees its call's place when it has ended."""

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        self._places = places

    def chunk(self, data: bytes) -> None:
        pass

    def end(self, how: Ending) -> None:  # noqa: ARG002 - however it ended
        self._places.leave()
