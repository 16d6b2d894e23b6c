"""What one call has taken from its limits, and what it gives back when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ai_proxy_mw._errors import RateLimited
from ai_proxy_mw._limits import MICRO, Limit
from ai_proxy_mw._loop import SETTLING
from ai_proxy_mw.limiting import keys
from ai_proxy_mw.limiting.leases import Lease
from ai_proxy_mw.limiting.ledger import Standing, Taken
from ai_proxy_mw.stores.guard import StoreDown

if TYPE_CHECKING:
    from ai_proxy_mw._http import Ending, Request
    from ai_proxy_mw.limiting.books import Book
    from ai_proxy_mw.limiting.limiter import Limiter

Cost = Callable[[Limit], int]
"""How much of what a limit counts."""

Wanted = tuple[Limit, str, int]
"""What is taken of which limit, and the base of its key."""

_UNITS = {"input_tokens": "input tokens", "output_tokens": "output tokens"}


class Tally:
    """One for each call that has limits. Everything is taken and settled in its event loop.

    `needs_call` says whether a limit can only be counted when the call is known.
    """

    __slots__ = (
        "_counted",
        "_early",
        "_late",
        "_leases",
        "_let_go",
        "_limiter",
        "_request",
        "_taken",
        "needs_call",
        "standings",
    )

    def __init__(self, limiter: Limiter, request: Request, limits: tuple[Limit, ...]) -> None:
        self._limiter = limiter
        self._request = request
        self._early: list[Limit] = []
        self._late: list[Limit] = []
        for limit in limits:
            (self._late if limit.needs_call else self._early).append(limit)
        self.needs_call = bool(self._late)
        self._taken: list[tuple[Book, Taken]] = []
        self._counted: list[tuple[Book, Taken]] = []
        self._leases: list[tuple[Book, Lease]] = []
        self._let_go = False
        self.standings: list[Standing] = []

    @property
    def holds_places(self) -> bool:
        """Whether there is something to release."""
        return bool(self._leases)

    def behind(self) -> Tally:
        """For work that the call sets going and does not wait for: tokens, money and places.

        It is no call of the caller's, so what counts calls does not count it.
        """
        limits = tuple(limit for limit in self._late if limit.of != "requests")
        return Tally(self._limiter, self._request, limits)

    # Not a coroutine of its own: that would be one more frame for every call.
    def take_early(self) -> Awaitable[None]:
        """Count what needs no look at the body. Raises RateLimited and Unavailable."""
        return self._take(self._early, _one)

    async def take_late(self, cost: Cost) -> None:
        """Reserve what the call may cost. Raises RateLimited and Unavailable."""
        try:
            await self._take(self._late, cost)
        except RateLimited:
            self.uncount()
            raise

    def settle(self, cost: Cost) -> None:
        """Make what was reserved what was used. What is counted by calls stays counted."""
        taken, self._taken = self._taken, []
        reserved = self._limiter.reserved
        for book, each in taken:
            left = reserved[each.base] - each.amount
            if left > 0:
                reserved[each.base] = left
            else:
                del reserved[each.base]
            amount = cost(each.limit)
            if amount != each.amount:
                book.settle(each, amount)

    def release(self) -> None:
        """Free the places of `concurrent`, and those that are still taken for what goes on."""
        self._let_go = True
        leases, self._leases = self._leases, []
        for book, lease in leases:
            book.leases.release(lease)

    async def _take(self, limits: list[Limit], cost: Cost) -> None:
        wanted: list[Wanted] = []
        for limit in limits:
            amount = cost(limit) if self._covers(limit) else 0
            who = keys.owner(limit, self._request) if amount else None
            if who is not None:
                wanted.append((limit, self._limiter.base(limit, who), amount))
        if not wanted:
            return
        book = self._limiter.books.here()
        if book.guard is not None:
            refused = await self._from_afar(book, _in_order(wanted))
        elif len(wanted) == 1:
            refused = await self._from_one(book, *wanted[0])
        else:
            refused = await self._from(book, _in_order(wanted))
        if refused is not None:
            raise _error(refused, cost(refused.limit))

    def _covers(self, limit: Limit) -> bool:
        if limit.endpoints is None and limit.models is None:
            return True  # as mostly
        endpoint, call = self._request.endpoint, self._request.call
        if limit.covers(endpoint, None if call is None else call.model):
            return True
        # Nobody escapes a limit of a model by naming it second.
        return (
            limit.models is not None
            and call is not None
            and any(limit.covers(endpoint, other) for other in call.other_models)
        )

    async def _from_one(self, book: Book, limit: Limit, base: str, amount: int) -> Standing | None:
        """As `_from` of one: there is nothing to give back."""
        taken, standing = await book.ledger.take(limit, base, amount)
        self.standings.append(standing)
        if taken is None:
            return standing
        self._keep(book, taken)
        return None

    async def _from(self, book: Book, wanted: list[Wanted]) -> Standing | None:
        """Take from all of them or from none; the one to wait for longest, if one is too little."""
        got: list[Taken] = []
        standings: list[Standing] = []
        try:
            for limit, base, amount in wanted:
                if len(got) == len(standings):
                    taken, standing = await book.ledger.take(limit, base, amount)
                    if taken is not None:
                        got.append(taken)
                else:
                    # Who is refused by one learns of the others that he would have to wait for.
                    standing = await book.ledger.standing(limit, base, amount)
                standings.append(standing)
            if len(got) < len(wanted):
                return await self._refused(book, standings, got)
        except BaseException:
            # Who is not let in holds nothing, whichever of the limits could not be asked.
            for each in got:
                book.leases.settle(each, 0)
            raise
        self.standings += standings
        for each in got:
            self._keep(book, each)
        return None

    async def _from_afar(self, book: Book, wanted: list[Wanted]) -> Standing | None:
        """The same where the store may be slow or down."""
        assert book.guard is not None
        asking = asyncio.create_task(
            book.guard.ask(partial(self._from, book, wanted)), name=SETTLING
        )
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            # The store may have done it already. It must be known what was taken, to give it back.
            book.leases.later(self._abandon(asking))
            raise
        except StoreDown:
            instead = self._limiter.instead()
            return None if instead is None else await self._from(instead, wanted)

    async def _refused(self, book: Book, standings: list[Standing], got: list[Taken]) -> Standing:
        """Give back what was taken until one had too little."""
        told = [*map(_returned, standings, got), *standings[len(got) :]]
        while got:
            await book.ledger.settle(got.pop(), 0)
        self.standings += told
        return max(standings, key=_wait)

    def uncount(self) -> None:
        """Give back what is counted by calls: this one is refused in the end, or costs nothing."""
        counted, self._counted = self._counted, []
        for book, taken in counted:
            book.settle(taken, 0)
        by_limit = {taken.limit: taken for _, taken in counted}
        self.standings = [
            _returned(each, by_limit[each.limit]) if each.limit in by_limit else each
            for each in self.standings
        ]

    async def _abandon(self, asking: asyncio.Task[Standing | None]) -> None:
        try:
            await asking
        finally:
            self.settle(_nothing)
            self.release()

    def _keep(self, book: Book, taken: Taken) -> None:
        of = taken.limit.of
        if of == "concurrent":
            self._leases.append((book, book.leases.hold(taken)))
            if self._let_go:
                self.release()
        elif of == "requests":
            self._counted.append((book, taken))
        else:
            reserved = self._limiter.reserved
            reserved[taken.base] = reserved.get(taken.base, 0) + taken.amount
            self._taken.append((book, taken))


class Release:
    """Watches an answer, and frees its call's places when it has ended."""

    __slots__ = ("_tally",)

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def chunk(self, data: bytes) -> None:
        pass

    def end(self, how: Ending) -> None:  # noqa: ARG002 - however it ended
        self._tally.release()


def _one(limit: Limit) -> int:  # noqa: ARG001 - a call is one of whatever counts calls
    return 1


def _wait(standing: Standing) -> int:
    return standing.wait


def _in_order(wanted: list[Wanted]) -> list[Wanted]:
    """The storage can forget no moment of a moving window, so nothing may refuse after it."""
    return sorted(wanted, key=_is_moving)


def _is_moving(wanted: Wanted) -> bool:
    return wanted[0].strategy == "moving"


def _returned(standing: Standing, taken: Taken) -> Standing:
    """How the limit stands when what was taken has been given back; of a moving one nothing is."""
    back = taken.amount if taken.key else 0
    return replace(standing, remaining=standing.remaining + back)


def _nothing(limit: Limit) -> int:  # noqa: ARG001 - whatever it counts
    return 0


def _error(standing: Standing, cost: int) -> RateLimited:
    limit = standing.limit
    kind = {"usd": "insufficient_quota", "requests": "requests", "concurrent": "requests"}
    if limit.of == "concurrent":
        text = f"You have {limit.amount} calls under way, which is as many as you may have"
    elif cost > limit.amount:
        text = f"This call alone may cost {_amount(limit, cost)}, which is more than the limit"
    else:
        text = f"You have used the {_amount(limit, limit.amount)} that you may"
    within = f" in {limit.window} seconds" if limit.window else ""
    return RateLimited(
        f"{text}{within}. Try again in {standing.wait} s.",
        kind=kind.get(limit.of, "tokens"),
        retry_after=standing.wait,
    )


def _amount(limit: Limit, amount: int) -> str:
    if limit.of == "usd":
        return f"${amount / MICRO:.2f}"
    return f"{amount} {_UNITS.get(limit.of, limit.of)}"
