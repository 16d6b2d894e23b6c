"""Reserves what a call may cost, and settles it to what it did cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw._errors import ProxyError, UpstreamBusy, UpstreamError, UpstreamUnreachable
from ai_proxy_mw.accounting.readers import reader_for

if TYPE_CHECKING:
    from ai_proxy_mw._http import Ending, Request, Response
    from ai_proxy_mw._types import Handler, RawHeaders
    from ai_proxy_mw.accounting.costs import Bill, Costs
    from ai_proxy_mw.accounting.readers import UsageReader
    from ai_proxy_mw.limiting.tally import Tally


class BudgetStage:
    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    async def __call__(self, request: Request, handler: Handler) -> Response:
        tally = request.tally
        if tally is None or not tally.needs_call:
            return await handler(request)
        bill = self._costs.bill(request)
        await tally.take_late(bill.expected)
        try:
            response = await handler(request)
        except BaseException as error:
            tally.settle(bill.asked if _was_sent(error) else bill.nothing)
            raise
        if response.status >= 400:
            tally.settle(bill.nothing)  # providers do not charge for errors
            return response
        reader = reader_for(request.endpoint, response.status, *_kind(response.headers))
        response.observers.append(_Settle(tally, bill, reader))
        return response


def _kind(headers: RawHeaders) -> tuple[str | None, str | None]:
    """The content type and the coding, each as its first line has it."""
    kind = coding = None
    for name, value in headers:
        if name == b"content-type" and kind is None:
            kind = value.decode("latin-1")
        elif name == b"content-encoding" and coding is None:
            coding = value.decode("latin-1")
    return kind, coding


class _Settle:
    """Watches what is used, and settles it when the answer has ended, however it did."""

    __slots__ = ("_bill", "_reader", "_tally", "chunk")

    def __init__(self, tally: Tally, bill: Bill, reader: UsageReader) -> None:
        self._tally = tally
        self._bill = bill
        self._reader = reader
        self.chunk = reader.chunk

    def end(self, how: Ending) -> None:  # noqa: ARG002 - what was used is paid for
        self._tally.settle(self._bill.used(self._reader.usage()))


def _was_sent(error: BaseException) -> bool:
    """Whether the upstream may have begun to work, so that what was asked is to be paid for."""
    if isinstance(error, ProxyError):
        return isinstance(error, UpstreamError) and not isinstance(
            error, UpstreamBusy | UpstreamUnreachable
        )
    return True
