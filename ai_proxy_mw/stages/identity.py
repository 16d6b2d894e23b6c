"""Asks who is calling, and lets nobody pass who is nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw._errors import Unauthorized

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._identify import AsyncIdentify
    from ai_proxy_mw._types import Handler


class IdentityStage:
    def __init__(self, identify: AsyncIdentify) -> None:
        self._identify = identify

    async def __call__(self, request: Request, handler: Handler) -> Response:
        subject = await self._identify(request)
        if subject is None:
            raise Unauthorized
        if not isinstance(subject, str):
            raise TypeError(f"identify= must return str or None, not {type(subject).__name__}")
        if not subject.strip():
            raise Unauthorized
        request.subject = subject
        return await handler(request)
