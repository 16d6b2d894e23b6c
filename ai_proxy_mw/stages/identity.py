"""Asks who is calling, and lets nobody pass who is nobody."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import Unauthorized
from ai_proxy_mw._identify import AppAnswer
from ai_proxy_mw._identity import Identity, fault, named

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._identify import AsyncIdentify
    from ai_proxy_mw._types import Handler

logger = logging.getLogger("ai_proxy_mw")


class IdentityStage:
    def __init__(self, identify: AsyncIdentify) -> None:
        self._identify = identify

    async def __call__(self, request: Request, handler: Handler) -> Response:
        try:
            if request.refusal is not None:
                raise request.refusal
            found = await self._identify(request)
        except AppAnswer as answer:
            return answer.response
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            assert task is not None
            if task.cancelling():
                raise
            # Not of this call: of something the hook has waited for.
            raise RuntimeError("identify= waited for what was cancelled") from error
        if found is None:
            raise Unauthorized
        identity = found if isinstance(found, Identity) else named(found)
        wrong = fault(identity.subject)
        if wrong is not None:
            # Not a fault of ours to be told as one: the caller may have chosen it.
            logger.warning("%s: the subject cannot be used: %s", request.id, wrong)
            raise Unauthorized
        request.identity = identity
        request.subject = identity.subject
        return await handler(request)
