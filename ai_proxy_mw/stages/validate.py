"""Reads the call where somebody further in must know it, and judges it before it costs money."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw._errors import InvalidRequest, ModelNotAllowed
from ai_proxy_mw.schema.call import JSON_ENDPOINTS, Call, check_media, runs_a_model

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._identity import Identity
    from ai_proxy_mw._types import Handler

_MODEL = "GET /models/{id...}"


class ValidateStage:
    """Bodies that nobody must know pass unread, in pieces, as they come."""

    async def __call__(self, request: Request, handler: Handler) -> Response:
        identity = request.identity
        restricted = identity is not None and identity.models is not None
        if restricted or (request.tally is not None and request.tally.needs_call):
            await _read(request)
        if identity is not None and restricted:
            _check_models(request, identity)
        return await handler(request)


async def _read(request: Request) -> None:
    if request.endpoint in JSON_ENDPOINTS:
        check_media(request.headers)
        request.call = Call(request.endpoint, await request.body.read())


def _check_models(request: Request, identity: Identity) -> None:
    """Whether the caller may use the models asked for; nothing unknown passes."""
    if request.endpoint == _MODEL:
        asked = [(request.path or "").removeprefix("/models/")]
    elif not runs_a_model(request.endpoint):
        return
    elif request.call is None or request.call.model is None:
        raise ModelNotAllowed("You may use certain models only, and this call names none.")
    elif request.query:
        raise InvalidRequest("You may use certain models only, and a query could name another.")
    else:
        asked = [request.call.model, *request.call.other_models]
    for model in asked:
        if not identity.may_use(model):
            raise ModelNotAllowed(f"You may not use the model {model!r}.")
