"""The order of the corridor, written once.

    door → cors → errors → endpoint → identity → relay → upstream

A stage takes the request and the handler behind it, and answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw.stages.cors import CorsStage
from ai_proxy_mw.stages.endpoint import EndpointStage
from ai_proxy_mw.stages.errors import errors
from ai_proxy_mw.stages.identity import IdentityStage
from ai_proxy_mw.stages.relay import Relay

if TYPE_CHECKING:
    from ai_proxy_mw._cors import CORS
    from ai_proxy_mw._endpoints import Endpoints
    from ai_proxy_mw._identify import AsyncIdentify
    from ai_proxy_mw._types import Handler, Stage


def build(
    *, endpoints: Endpoints, identify: AsyncIdentify, relay: Relay, cors: CORS | None = None
) -> Handler:
    """The whole journey of a request as one handler."""
    corridor: list[Stage] = [
        errors,
        EndpointStage(endpoints),
        IdentityStage(identify),
    ]
    if cors is not None:
        corridor.insert(0, CorsStage(cors, errors))
    handler: Handler = relay
    for stage in reversed(corridor):
        handler = _before(stage, handler)
    return handler


def _before(stage: Stage, handler: Handler) -> Handler:
    # Not a coroutine of its own: that would be one more frame to wake for every stage.
    return lambda request: stage(request, handler)
