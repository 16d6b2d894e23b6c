"""Reserves what a call may cost, and settles it to what it did cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw._errors import InvalidRequest, ProxyError, UpstreamError
from ai_proxy_mw.accounting.readers import reader_for

if TYPE_CHECKING:
    from ai_proxy_mw._http import Ending, Request, Response
    from ai_proxy_mw._types import Handler, RawHeaders
    from ai_proxy_mw.accounting.costs import Answerer, Bill, Costs
    from ai_proxy_mw.accounting.readers import UsageReader
    from ai_proxy_mw.limiting.tally import Cost, Tally


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
            own = bill.asked if _was_sent(error, request) else bill.nothing
            tally.settle(_with_the_rest(own, bill, request))
            raise
        if response.status >= 400:
            # Providers do not charge for errors.
            tally.settle(_with_the_rest(bill.nothing, bill, request))
            return response
        reader = reader_for(request.endpoint, response.status, *_kind(response.headers))
        response.observers.append(_Settle(request, tally, bill, reader))
        return response


def _with_the_rest(own: Cost, bill: Bill, request: Request) -> Cost:
    """What an answer has cost, and besides it what was sent in vain."""
    served = request.served
    if served is None or not (served.unanswered or served.lost):
        return own
    lost = [bill.used(usage, by.model_names) for by, usage in served.lost]
    costs = [own, *lost, *[bill.asked] * served.unanswered]
    return lambda limit: sum(each(limit) for each in costs)


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

    __slots__ = ("_bill", "_reader", "_request", "_tally", "chunk")

    def __init__(self, request: Request, tally: Tally, bill: Bill, reader: UsageReader) -> None:
        self._request = request
        self._tally = tally
        self._bill = bill
        self._reader = reader
        self.chunk = reader.chunk

    def end(self, how: Ending) -> None:  # noqa: ARG002 - what was used is paid for
        used = self._bill.used(self._reader.usage(), _answerer(self._request))
        self._tally.settle(_with_the_rest(used, self._bill, self._request))


def _answerer(request: Request) -> Answerer | None:
    """The one model that has answered, if it can have been but one."""
    served, call = request.served, request.call
    if served is None or served.by is None:
        return None
    try:
        others = [] if call is None else call.other_models
    except InvalidRequest:
        return None  # this upstream's decoder has found some or not
    return None if others else served.by.model_names


def _was_sent(error: BaseException, request: Request) -> bool:
    """Whether the upstream may have begun to work, so that what was asked is to be paid for."""
    if request.served is not None:
        return False  # it is counted there how often that was in vain
    return not isinstance(error, ProxyError) or (isinstance(error, UpstreamError) and error.sent)
