"""The order of the corridor, written once.

    door → cors → record → errors → endpoint → health → cross_site → identity
        → shed → rate_limit → validate → model_rules → checks → inline → cache
        → models_list → uploads → budget → resilience → relay → upstream

A stage takes the request and the handler behind it, and answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ai_proxy_mw._errors import Unavailable
from ai_proxy_mw.stages.budget import BudgetStage
from ai_proxy_mw.stages.cache import CacheStage
from ai_proxy_mw.stages.checks import ChecksStage
from ai_proxy_mw.stages.cors import CorsStage
from ai_proxy_mw.stages.cross_site import CrossSiteStage
from ai_proxy_mw.stages.endpoint import EndpointStage
from ai_proxy_mw.stages.errors import errors
from ai_proxy_mw.stages.health import HealthStage
from ai_proxy_mw.stages.identity import IdentityStage
from ai_proxy_mw.stages.inline import InlineStage
from ai_proxy_mw.stages.model_rules import ModelRulesStage
from ai_proxy_mw.stages.models_list import ModelsListStage
from ai_proxy_mw.stages.rate_limit import RateLimitStage
from ai_proxy_mw.stages.record import RecordStage
from ai_proxy_mw.stages.relay import Relay
from ai_proxy_mw.stages.resilience import Resilience
from ai_proxy_mw.stages.shed import ShedStage
from ai_proxy_mw.stages.uploads import UploadsStage
from ai_proxy_mw.stages.validate import ValidateStage

if TYPE_CHECKING:
    from ai_proxy_mw._cors import CORS
    from ai_proxy_mw._endpoints import Endpoints
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._identify import AsyncIdentify
    from ai_proxy_mw._rules import Rules
    from ai_proxy_mw._types import Handler, Stage
    from ai_proxy_mw._ways import Ways
    from ai_proxy_mw.accounting.costs import Costs
    from ai_proxy_mw.caching.answers import Answers
    from ai_proxy_mw.limiting.limiter import Limiter
    from ai_proxy_mw.metrics.desk import Desk
    from ai_proxy_mw.routing.gate import Gate


class Journey(NamedTuple):
    """whole: from the door on. admitted: of a request whose caller is known and let in.
    stopping: of one that comes, or is not answered yet, when the process stops.
    """

    whole: Handler
    admitted: Handler
    stopping: Handler


def build(
    *,
    endpoints: Endpoints,
    identify: AsyncIdentify,
    trusted_origins: Iterable[str] | None,
    gate: Gate | None,
    limiter: Limiter,
    rules: Rules,
    answers: Answers | None,
    costs: Costs,
    ways: Ways,
    cors: CORS | None,
    desk: Desk | None,
    name: str,
    stopping: Callable[[], bool] | None,
) -> Journey:
    """The whole journey of a request. What is None is not on its way.

    stopping: whether no more calls are taken; None where nobody may ask how the proxy is.
    """
    record = None if desk is None else RecordStage(desk)
    shown: list[Stage | None] = [
        None if cors is None else CorsStage(cors, errors),
        record,
        errors,
        EndpointStage(endpoints),
        None if stopping is None else HealthStage(ways.lanes, stopping),
    ]
    who: list[Stage | None] = [
        *shown,
        None if trusted_origins is None else CrossSiteStage(cors, trusted_origins),
        IdentityStage(identify),
        None if gate is None else ShedStage(gate),
        RateLimitStage(limiter),
    ]
    what: list[Stage | None] = [
        ValidateStage(
            rules.reader,
            always=rules.look_at_calls or answers is not None or ways.house is not None,
            again=answers is not None,
        ),
        ModelRulesStage(rules.models, rules.caps, seen_in_passing=rules.uploads),
        ChecksStage(rules.checks, rules.reader) if rules.checks else None,
        None if rules.fetcher is None else InlineStage(rules.fetcher),
        None if answers is None else CacheStage(answers),
        ModelsListStage(ways.catalogue, rules.models, app=name),
        UploadsStage(rules.uploads, rules.models, rules.caps) if rules.uploads else None,
        BudgetStage(costs),
    ]
    house = ways.house
    admitted = _through(what, Relay(ways.lanes[0]) if house is None else Resilience(house))
    return Journey(
        whole=_through(who, admitted),
        admitted=_through([record], admitted),
        stopping=_through(shown, _unavailable),
    )


async def _unavailable(request: Request) -> NoReturn:  # noqa: ARG001 - it is a Handler
    raise Unavailable


def _through(stages: Sequence[Stage | None], handler: Handler) -> Handler:
    for stage in reversed(stages):
        if stage is not None:
            handler = _before(stage, handler)
    return handler


def _before(stage: Stage, handler: Handler) -> Handler:
    # The method itself: to call its object takes the interpreter longer, for every call.
    it: Any = stage
    step: Stage = it if isinstance(it, FunctionType) else it.__call__
    # Not a coroutine of its own: that would be one more frame to wake for every stage.
    return lambda request: step(request, handler)
