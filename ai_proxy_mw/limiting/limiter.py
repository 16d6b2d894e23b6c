"""Which limits a call is counted against, and what happens where they cannot be asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from msgspec.structs import replace

from ai_proxy_mw._errors import ConfigurationError, Unavailable
from ai_proxy_mw._limits import Limit, limits_of
from ai_proxy_mw._loop import loop_thread
from ai_proxy_mw.limiting import keys
from ai_proxy_mw.limiting.books import Book, Books
from ai_proxy_mw.limiting.closest import Closest, Watch
from ai_proxy_mw.limiting.ledger import Standing

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._identity import Identity

T = TypeVar("T")

Limits = Iterable[str | Limit]
FindLimits = Callable[["Request"], Limits]
OnStoreFailure = Literal["allow", "deny", "memory"]

UNCOUNTED = "How much you have used cannot be counted at the moment."


class Limiter:
    """Counts calls against limits.

    limits: what holds for all callers, or a function of the request that says what holds for its
        caller. An `Identity` with limits of its own goes before both.
    name: of the app, which does not count together with apps of other names.
    on_failure: while the storage does not answer, calls pass uncounted ("allow"), are refused
        with 503 ("deny"), or are counted in each process for itself ("memory").

    Raises ConfigurationError.
    """

    def __init__(
        self,
        limits: Limits | FindLimits,
        *,
        name: str,
        storage: object | None = None,
        on_failure: OnStoreFailure = "memory",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if on_failure not in get_args(OnStoreFailure):
            raise ConfigurationError(
                f"on_store_failure={on_failure!r}: write one of {get_args(OnStoreFailure)}"
            )
        self._find = limits if callable(limits) else None
        self._app = keys.digest(name)[:8]
        self._on_failure = on_failure
        self._storage = storage
        self._clock = clock
        self._limits: tuple[Limit, ...] = () if callable(limits) else self._checked(limits)
        if self._find is not None or self._limits or storage is not None:
            self.books  # noqa: B018 - what is wrong with it is told now
        self.reserved: dict[str, int] = {}
        """What calls under way in this process hold, by the base of its key."""
        self.watch = Watch(clock)

    @cached_property
    def books(self) -> Books:
        """Made when they are needed: an identity may come with limits where there are no others."""
        return Books(self._storage, self._clock)

    def limits_for(self, request: Request) -> tuple[Limit, ...]:
        """What a call is counted against."""
        identity = request.identity
        if identity is not None and identity.limits is not None:
            return self._checked(identity.limits)
        return self._limits if self._find is None else self._checked(self._find(request))

    @property
    def shared_counts(self) -> Callable[[], Any] | None:
        """Gives the storage of the running loop, where other processes see what is in it."""
        if self._storage is None or self.books.is_local:
            return None
        return lambda: self.books.here().store

    def base(self, limit: Limit, who: str) -> str:
        """Under which key somebody's count is kept, whatever the window."""
        return keys.base(self._app, limit, who)

    def instead(self) -> Book | None:
        """Where to count while the storage does not answer; None for nowhere."""
        if self._on_failure == "deny":
            raise Unavailable(UNCOUNTED)
        return self.books.instead() if self._on_failure == "memory" else None

    async def status(
        self, who: str | Identity, *, ip: str | None = None, model: str | None = None
    ) -> list[Standing]:
        """How the limits stand for somebody, by subject or identity.

        Those per address or model are among them where it is given; those per function are not.
        Raises StoreDown while the storage does not answer.
        """
        book = self.books.here()
        found = []
        for limit, base in self._countable(who, ip, model):
            question = partial(book.ledger.standing, limit, base)
            standing = await (question() if book.guard is None else book.guard.ask(question))
            found.append(replace(standing, reserved=self.reserved.get(base, 0)))
        return found

    async def reset(
        self, who: str | Identity, *, ip: str | None = None, model: str | None = None
    ) -> None:
        """Forget what somebody has used, as `status` would tell it. Raises StoreDown."""
        book = self.books.here()
        for limit, base in self._countable(who, ip, model):
            question = partial(book.ledger.reset, limit, base)
            await (question() if book.guard is None else book.guard.ask(question))

    def closest(self) -> list[Closest]:
        """The limits that are close to exhaustion, as this process knows them from its calls."""
        return self.watch.closest()

    def status_sync(
        self, who: str | Identity, *, ip: str | None = None, model: str | None = None
    ) -> list[Standing]:
        """`status` for code that has no event loop."""
        return self._run(self.status(who, ip=ip, model=model))

    def reset_sync(
        self, who: str | Identity, *, ip: str | None = None, model: str | None = None
    ) -> None:
        """`reset` for code that has no event loop."""
        self._run(self.reset(who, ip=ip, model=model))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        thread = loop_thread()
        thread.at_stop(self, self.aclose)
        return thread.run(work)

    async def aclose(self) -> None:
        """Wait for what is being settled, and close the running loop's connections."""
        if "books" in vars(self):
            await self.books.aclose()

    def _checked(self, limits: Limits) -> tuple[Limit, ...]:
        """Limits that can be counted. Raises ConfigurationError."""
        found = _apart(limits)
        for limit in found:
            if limit.strategy == "moving":
                self.books.check(limit)
        return found

    def _countable(
        self, who: str | Identity, ip: str | None, model: str | None
    ) -> Iterator[tuple[Limit, str]]:
        subject = who if isinstance(who, str) else who.subject
        own = None if isinstance(who, str) else who.limits
        values: dict[object, tuple[str | None, ...]] = {
            "subject": (subject,),
            "ip": (ip,),
            "model": (model,),
            "subject+model": (subject, model),
        }
        for limit in self._limits if own is None else self._checked(own):
            parts = values.get(limit.per, (None,))
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                yield limit, self.base(limit, keys.digest(*known))


def _apart(limits: Limits) -> tuple[Limit, ...]:
    """The limits, each of which has a count of its own. Raises ConfigurationError."""
    found = limits_of(limits)
    if len({(limit.id, limit.shared) for limit in found}) < len(found):
        raise ConfigurationError(
            f"limits={[str(limit) for limit in found]}: two of them would count each call twice in "
            "one count, since they differ in nothing but the amount; keep the smaller, and give "
            "functions for per= names of their own"
        )
    return found
