"""Keeps the calls from what goes wrong in tracing them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.accounting.record import Record
    from ai_proxy_mw.metrics.base import Span, Tracing

logger = logging.getLogger("ai_proxy_mw")


def begun(tracing: Tracing, request: Request) -> HarmlessSpan | None:
    """The span of a call; None where there was none to be had."""
    try:
        return HarmlessSpan(tracing.begin(request))
    except Exception:
        logger.exception("%s: the call is not traced", request.id)
        return None


class HarmlessSpan:
    """A span whose faults are logged and go no further."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def headers(self) -> RawHeaders:
        try:
            return self._span.headers()
        except Exception:
            logger.exception("the upstream is not told of a trace")
            return []

    def end(self, record: Record) -> None:
        try:
            self._span.end(record)
        except Exception:
            logger.exception("%s: the trace of the call has no end", record.request_id)
