"""What the owner of a proxy does with its cache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._identity import Identity
from ai_proxy_mw._loop import loop_thread
from ai_proxy_mw.caching.counts import stats_of
from ai_proxy_mw.caching.tags import tag_of
from ai_proxy_mw.caching.warming import ask

if TYPE_CHECKING:
    from ai_proxy_mw._types import Handler
    from ai_proxy_mw.caching.answers import Answers
    from ai_proxy_mw.caching.counts import CacheStats
    from ai_proxy_mw.caching.tags import Kind

T = TypeVar("T")


class CacheTools:
    """`proxy.cache`. Each method has a `_sync` form for code that has no event loop.

    handler: the corridor of calls that are let in.
    """

    def __init__(self, answers: Answers, handler: Handler) -> None:
        self._answers = answers
        self._handler = handler

    async def stats(self) -> CacheStats:
        """What this process has saved, and what the store holds. Raises what the store raises."""
        held = await self._answers.store.stats()
        return stats_of(self._answers.counts, held, failures=self._answers.failures)

    async def purge(
        self,
        *,
        subject: str | None = None,
        endpoint: str | None = None,
        model: str | None = None,
        key: str | None = None,
    ) -> int:
        """Forget what was answered to a subject, by an endpoint, by a model, or under one key; with
        none of them all answers of this app. How many they were.

        subject: as `identify` gives it; of what is shared, that which he was the first to ask.
        endpoint: like "POST /chat/completions". model: as the upstream knows it.

        What another process is just being answered may be kept after it. Raises
        ConfigurationError where more than one is given, and what the store raises.
        """
        named: dict[Kind, str | None] = {"subject": subject, "endpoint": endpoint, "model": model}
        tags = [tag_of(kind, text) for kind, text in named.items() if text is not None]
        if len(tags) + (key is not None) > 1:
            raise ConfigurationError("purge: write one of subject=, endpoint=, model= and key=")
        return await self._answers.purge(key=key, tag="".join(tags))

    def keys(self) -> AsyncIterator[str]:
        """The keys of this app's answers, for `purge(key=...)`."""
        return self._answers.keys()

    async def warm(
        self,
        bodies: Iterable[Mapping[str, Any]],
        *,
        endpoint: str = "POST /chat/completions",
        who: str | Identity = "warm-up",
    ) -> None:
        """Ask questions so that their answers are there when somebody else does.

        bodies: of the requests, each an object as a client sends it; `[{}]` for a GET. who: whose
        answers they become; with `scope="shared"` everybody's. They are judged as all calls are,
        and counted against no limit.

        Raises ProxyError for the first that is refused; those before it are kept. Raises
        ConfigurationError for an endpoint that is not kept.
        """
        if endpoint not in self._answers.options.endpoints:
            known = sorted(self._answers.options.endpoints)
            raise ConfigurationError(f"warm(endpoint={endpoint!r}): write one of {known}")
        identity = Identity(who) if isinstance(who, str) else who
        for body in bodies:
            content = b"" if endpoint.startswith("GET ") else msgspec.json.encode(body)
            await ask(self._handler, endpoint, content, identity)

    def stats_sync(self) -> CacheStats:
        """`stats` for code that has no event loop."""
        return self._run(self.stats())

    def purge_sync(
        self,
        *,
        subject: str | None = None,
        endpoint: str | None = None,
        model: str | None = None,
        key: str | None = None,
    ) -> int:
        """`purge` for code that has no event loop."""
        return self._run(self.purge(subject=subject, endpoint=endpoint, model=model, key=key))

    def warm_sync(
        self,
        bodies: Iterable[Mapping[str, Any]],
        *,
        endpoint: str = "POST /chat/completions",
        who: str | Identity = "warm-up",
    ) -> None:
        """`warm` for code that has no event loop."""
        self._run(self.warm(bodies, endpoint=endpoint, who=who))

    def keys_sync(self) -> list[str]:
        """`keys` for code that has no event loop."""
        return self._run(self._all_keys())

    async def _all_keys(self) -> list[str]:
        return [key async for key in self.keys()]

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        thread = loop_thread()
        thread.at_stop(self._answers, self._answers.aclose)
        return thread.run(work)
