"""Reserves what a call may cost, and settles it to what it did cost, which it also writes down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw._errors import InvalidRequest, ProxyError, UpstreamError
from ai_proxy_mw.accounting.hidden_usage import tell
from ai_proxy_mw.accounting.readers import reader_for

if TYPE_CHECKING:
    from ai_proxy_mw._http import Ending, Request, Response
    from ai_proxy_mw._types import Handler, RawHeaders
    from ai_proxy_mw.accounting.costs import Answerer, Bill, Costs
    from ai_proxy_mw.accounting.readers import UsageReader
    from ai_proxy_mw.accounting.usage import Usage
    from ai_proxy_mw.limiting.tally import Tally

Spent = list[tuple["Usage", "Answerer | None"]]
"""What was used, and of which model, where that is known."""


class BudgetStage:
    """Reads what answers use where limits count it, or somebody wants to know."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    async def __call__(self, request: Request, handler: Handler) -> Response:
        tally = request.tally
        counts = tally is not None and tally.needs_call
        if not counts and request.note is None:
            return await handler(request)
        bill = self._costs.bill(request)
        if tally is not None and counts:
            await tally.take_late(bill.expected)
        account = _Account(request, bill, tally if counts else None)
        try:
            response = await handler(request)
        except BaseException as error:
            account.close([(bill.asked(), None)] if _was_sent(error, request) else [])
            raise
        if response.status >= 400 or not bill.runs:
            account.close([])  # providers do not charge for errors
        else:
            account.watch(response)
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


class _Account:
    """Of one call: its bill, its tally where that counts what is used, and its note.

    It watches the answer.
    """

    __slots__ = ("_aside", "_note", "_reader", "_request", "_tally", "bill", "chunk")

    def __init__(self, request: Request, bill: Bill, tally: Tally | None) -> None:
        self._request = request
        self._tally = tally
        self._note = request.note
        self.bill = bill

    def watch(self, response: Response) -> None:
        reader = reader_for(self._request.endpoint, response.status, *_kind(response.headers))
        self._reader: UsageReader = reader
        self._aside = response.aside
        self.chunk = reader.chunk
        if self._note is not None:
            self._note.said = reader
        response.observers.append(self)

    def end(self, how: Ending) -> None:  # noqa: ARG002 - what was used is paid for
        tell(self._reader, self._aside)
        self.close([(self.bill.used(self._reader.usage()), _answerer(self._request))])

    def close(self, own: Spent) -> None:
        """Settle what the answer has used, and besides it what was sent in vain."""
        bill = self.bill
        spent = own + _in_vain(self._request, bill)
        if self._tally is not None:
            self._tally.settle(
                lambda limit: sum(bill.amount(limit, usage, by) for usage, by in spent)
            )
        if self._note is not None and bill.runs:
            for usage, by in spent:
                self._note.spend(usage, bill.micro_usd(usage, by))


def _in_vain(request: Request, bill: Bill) -> Spent:
    served = request.served
    if served is None or not (served.unanswered or served.lost):
        return []
    lost: Spent = [(bill.used(usage), by.model_names) for by, usage in served.lost]
    return lost + [(bill.asked(), None)] * served.unanswered


def _answerer(request: Request) -> Answerer | None:
    """The one model that has answered, if it can have been but one."""
    served, call, note = request.served, request.call, request.note
    if call is None and note is not None and note.model is not None:
        return note.model, note.model  # an upload has named it
    try:
        if call is not None and call.other_models:
            return None
    except InvalidRequest:
        return None  # this upstream's decoder has found some or not
    if served is not None:
        return None if served.by is None else served.by.model_names
    return None if call is None or call.model is None else (call.model, call.model)


def _was_sent(error: BaseException, request: Request) -> bool:
    """Whether the upstream may have begun to work, so that what was asked is to be paid for."""
    if request.served is not None:
        return False  # it is counted there how often that was in vain
    if isinstance(error, ProxyError):
        return isinstance(error, UpstreamError) and error.sent
    return request.sends > 0
