"""How the lanes stand: for the owner each by itself, for everybody in one word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ai_proxy_mw.routing.breaker import State
    from ai_proxy_mw.routing.lane import Lane

Health = Literal["ready", "degraded", "down"]


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamStats:
    """One upstream with one of its keys, in this process.

    name: of the upstream, with the number of the key where it has several.
    state: "closed" where calls go there, "open" where it has failed too often and is left alone,
        "half_open" while it is tried again, "cooling" where it has asked to be left alone.
    calls, failures: how many calls have ended within the circuit's window, and how many badly.
    opened: how often its circuit has opened.
    in_flight: how many calls have not ended.
    wait: seconds until it may be asked; 0 if it may be now.
    """

    name: str
    state: State
    calls: int
    failures: int
    opened: int
    in_flight: int
    wait: float


def stats_of(lane: Lane) -> UpstreamStats:
    breaker = lane.breaker
    return UpstreamStats(
        name=lane.name,
        state=breaker.state,
        calls=breaker.calls,
        failures=breaker.failures,
        opened=breaker.opened,
        in_flight=lane.in_flight,
        wait=breaker.wait,
    )


def health_of(lanes: Iterable[Lane]) -> Health:
    """ready: each upstream may be asked by one of its keys. degraded: some. down: none."""
    may_be_asked: dict[str, bool] = {}
    for lane in lanes:
        name = lane.provider.name
        may_be_asked[name] = may_be_asked.get(name, False) or lane.breaker.available
    if all(may_be_asked.values()):
        return "ready"
    return "degraded" if any(may_be_asked.values()) else "down"
