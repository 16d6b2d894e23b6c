"""The ways out of the house, put together from the arguments of AIProxy."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ai_proxy_mw._circuit import Circuit
from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._header_rules import Outward
from ai_proxy_mw._numbers import is_number
from ai_proxy_mw._retry import Retry
from ai_proxy_mw.routing.breaker import Breaker
from ai_proxy_mw.routing.catalogue import Catalogue
from ai_proxy_mw.routing.decide import Policy
from ai_proxy_mw.routing.gate import Gate
from ai_proxy_mw.routing.lane import Lane, Provider
from ai_proxy_mw.routing.retry_budget import RetryBudget
from ai_proxy_mw.routing.router import Router
from ai_proxy_mw.routing.shared import SharedBreakers, lane_key
from ai_proxy_mw.routing.trip import House
from ai_proxy_mw.stages.relay import body_of, send
from ai_proxy_mw.upstream.native import NativeTransport

if TYPE_CHECKING:
    from ai_proxy_mw._config import Upstream
    from ai_proxy_mw.routing.router import Route
    from ai_proxy_mw.routing.shared_state import SharedState
    from ai_proxy_mw.routing.trip import Deadline
    from ai_proxy_mw.upstream.base import Transport

_OF_THE_ACCOUNT = (
    "anthropic-beta",
    "anthropic-version",
    "api-key",
    "authorization",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "x-api-key",
    "x-goog-api-key",
    "x-goog-user-project",
)
"""Headers that the owner sets for an upstream and that change what it answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ways:
    """house: what a call needs that may go more than one of them; None where there is but one.

    catalogue: which models there are.

    forwarded: names of the caller's headers that are passed on besides those that always are.
    """

    lanes: tuple[Lane, ...]
    router: Router
    house: House | None
    catalogue: Catalogue
    forwarded: tuple[str, ...]

    @property
    def accounts(self) -> str:
        """Who may answer, and to whom: with another key or organization there are other models.

        Goes into a digest only.
        """
        return "\n\n".join([_account(each) for each in _upstreams(self.lanes)])

    def models_behind(self, model: str) -> Sequence[tuple[str, str]]:
        """Under which names a model may be answered, as asked and as the upstream calls it."""
        return ((model, model),) if self.house is None else self.router.models_behind(model)

    async def stop_sharing(self) -> None:
        """Tell other processes nothing more; to be done before the store closes."""
        if self.house is not None and self.house.shared is not None:
            await self.house.shared.aclose()

    async def aclose(self) -> None:
        """Close the connections that the running event loop has open."""
        for provider in dict.fromkeys(lane.provider for lane in self.lanes):
            await provider.transport.aclose()


def ways_of(
    upstreams: Sequence[Upstream],
    forward: Iterable[str],
    *,
    retry: Retry | None,
    fallback: Mapping[str, Iterable[str]],
    circuit: Circuit | Literal[False] | None,
    hedge_after: float | None,
    route: Route | None,
    deadline: Deadline | None,
    name: str,
    state: SharedState | None,
) -> Ways:
    """name: of the app. state: where processes tell each other how upstreams fare.

    Raises ConfigurationError.
    """
    _check(retry, circuit, hedge_after, route, deadline)
    forwarded = forward if isinstance(forward, str) else tuple(forward)
    one_way = (len(upstreams) == 1 and len(upstreams[0].keys) <= 1) and not (
        retry or fallback or circuit or hedge_after or route or deadline or _has_terms(upstreams[0])
    )
    # Where no call tells the circuit how it went, the few that list models must not open it.
    terms = None if circuit is False or one_way else circuit or Circuit()
    lanes = tuple(lane for each in upstreams for lane in _lanes(each, forwarded, terms))
    router = Router(lanes, fallback)
    house = None
    if not one_way:
        shared = None if state is None or terms is None else _shared(lanes, name, state)
        house = _house(router, _retry(retry, lanes), hedge_after, route, deadline, shared)
    return Ways(
        lanes=lanes,
        router=router,
        house=house,
        catalogue=Catalogue(router, send),
        forwarded=tuple(forwarded),
    )


def _retry(given: Retry | None, lanes: Sequence[Lane]) -> Retry:
    return given or (Retry() if len(lanes) > 1 else Retry(attempts=1))


def _has_terms(upstream: Upstream) -> bool:
    return (
        upstream.names is not None
        or upstream.endpoints is not None
        or upstream.max_concurrent is not None
        or upstream.idempotency_key
        or "{" in upstream.path
    )


def _house(
    router: Router,
    retry: Retry,
    hedge_after: float | None,
    route: Route | None,
    deadline: Deadline | None,
    shared: SharedBreakers | None,
) -> House:
    clock = time.monotonic
    budget = None if retry.budget is None else RetryBudget(retry.budget, clock=clock)
    may_repeat: Callable[[], bool] = (lambda: True) if budget is None else budget.withdraw
    policy = Policy(retry, clock=clock, random=random.random, may_repeat=may_repeat)
    return House(
        router=router,
        policy=policy,
        send=send,
        body_of=body_of,
        attempts=retry.attempts,
        budget=budget,
        shared=shared,
        route=route,
        hedge_after=hedge_after,
        deadline=deadline,
        clock=clock,
    )


def _shared(lanes: Iterable[Lane], name: str, state: SharedState) -> SharedBreakers:
    breakers = {
        lane_key(name, lane.name, lane.provider.upstream.base_url): lane.breaker for lane in lanes
    }
    return SharedBreakers(breakers, state)


def _lanes(upstream: Upstream, forward: Iterable[str], circuit: Circuit | None) -> list[Lane]:
    limit = upstream.max_concurrent
    assert not isinstance(limit, int)
    provider = Provider(upstream, _transport(upstream), None if limit is None else Gate(limit))
    keys: Sequence[str | None] = upstream.keys or (None,)
    lanes = []
    for number, key in enumerate(keys, 1):
        name = upstream.name if len(keys) == 1 else f"{upstream.name}#{number}"
        lane = Lane(
            provider,
            Outward(upstream, forward, key=key),
            Breaker(circuit, name=name, clock=time.monotonic),
            name=name,
            key=key,
            weight=upstream.weight / len(keys),
        )
        lanes.append(lane)
    return lanes


def _upstreams(lanes: Iterable[Lane]) -> list[Upstream]:
    return list({lane.provider.name: lane.provider.upstream for lane in lanes}.values())


def _account(upstream: Upstream) -> str:
    # Not all headers: what names a host or a process would keep each from sharing with others.
    named = {name.lower(): value for name, value in upstream.headers.items()}
    told = [f"{name}: {named[name]}" for name in _OF_THE_ACCOUNT if name in named]
    query = [f"{name}={value}" for name, value in upstream.query.items()]
    models = [f"{name}={own}" for name, own in (upstream.names or {}).items() if own is not None]
    return "\n".join([upstream.base_url, *(upstream.keys or ("",)), *query, *told, *models])


def _transport(upstream: Upstream) -> Transport:
    if upstream.transport is not None:
        return upstream.transport
    if upstream.client is not None:
        from ai_proxy_mw.upstream.httpx import HttpxTransport  # noqa: PLC0415 - seldom needed

        return HttpxTransport(upstream.client)
    return NativeTransport(max_connections=upstream.max_connections, keepalive=upstream.keepalive)


def _check(
    retry: object, circuit: object, hedge_after: object, route: object, deadline: object
) -> None:
    if not isinstance(retry, Retry | None):
        raise ConfigurationError(f"retry={retry!r}: write Retry(attempts=3)")
    if circuit is not False and not isinstance(circuit, Circuit | None):
        raise ConfigurationError(f"circuit={circuit!r}: write Circuit(...), or False for none")
    if not (route is None or callable(route)):
        raise ConfigurationError("route: give a function of the request")
    for name, value in (("hedge_after", hedge_after), ("deadline", deadline)):
        is_function = name == "deadline" and callable(value)
        if not (value is None or is_function or (is_number(value) and value > 0)):
            raise ConfigurationError(f"{name}={value!r}: write a number of seconds above 0")
