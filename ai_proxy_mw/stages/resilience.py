"""Has a call answered by one of several upstreams, however often it takes to be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw.routing.trip import Trip

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw.routing.trip import House


class Resilience:
    """Stands at the end of the corridor in the place of a relay that knows one way only."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def __call__(self, request: Request) -> Response:
        house = self._house
        if house.shared is not None:
            house.shared.touch()
        if house.budget is not None:
            house.budget.deposit()
        return await Trip(house, request).answer()
