"""What the dashboard asks the proxy for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Record
    from ai_proxy_mw.limiting.closest import Closest
    from ai_proxy_mw.metrics.base import By, StatsReport, Window
    from ai_proxy_mw.routing.standing import UpstreamStats


class Sources(Protocol):
    """Where the numbers come from.

    What has a store behind it raises StoreDown while that does not answer.
    """

    async def stats(self, window: Window, by: By) -> StatsReport:
        """What a window of time was like, over all processes."""
        ...

    async def recent(self, most: int) -> list[Record]:
        """The calls that have ended last, the newest first."""
        ...

    def upstreams(self) -> list[UpstreamStats]:
        """How each upstream stands, in this process."""
        ...

    def limits(self) -> list[Closest]:
        """The limits that are close to exhaustion, in this process."""
        ...
