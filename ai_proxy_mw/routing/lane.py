"""A lane: one upstream, asked with one of its keys."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING

from ai_proxy_mw._base_url import MODEL, can_stand_in_path
from ai_proxy_mw._config import check_header_lines
from ai_proxy_mw._models import matches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_proxy_mw._config import Upstream
    from ai_proxy_mw._header_rules import Outward
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.routing.breaker import Breaker
    from ai_proxy_mw.routing.gate import Gate
    from ai_proxy_mw.upstream.base import Transport

_LONGEST_NAME = 256
"""Characters of a model's name that is looked up and kept in mind."""


class Provider:
    """What the lanes of one upstream have in common."""

    def __init__(self, upstream: Upstream, transport: Transport, gate: Gate | None) -> None:
        self.upstream = upstream
        self.transport = transport
        self.gate = gate
        self.by_model = MODEL in upstream.path
        self._known = lru_cache(maxsize=1024)(self._find)

    @property
    def name(self) -> str:
        return self.upstream.name

    def serves(self, endpoint: str) -> bool:
        endpoints = self.upstream.endpoints
        return endpoints is None or endpoint in endpoints

    def own_name(self, model: str) -> str | None:
        """What it calls a model; None if it has no such model."""
        return self._known(model) if len(model) <= _LONGEST_NAME else None

    def can_be_asked(self, model: str | None) -> bool:
        """Whether a path leads to this model, be it one of those that it is said to have or not."""
        if not self.by_model:
            return True
        if model is None or len(model) > _LONGEST_NAME:
            return False
        return self.own_name(model) is not None or can_stand_in_path(model)

    def path_to(self, model: str | None) -> str:
        """What stands before `/chat/completions` for this model."""
        path = self.upstream.path
        return path if model is None else path.replace(MODEL, model)

    def _find(self, model: str) -> str | None:
        own = _own_name(self.upstream.names, model)
        if own is not None and self.by_model and not can_stand_in_path(own):
            return None
        return own


class Lane:
    """`weight` is its part of its upstream's; `in_flight` counts the calls that have not ended."""

    __slots__ = ("_key", "breaker", "in_flight", "name", "outward", "provider", "weight")

    def __init__(
        self,
        provider: Provider,
        outward: Outward,
        breaker: Breaker,
        *,
        name: str,
        key: str | None,
        weight: float,
    ) -> None:
        self.provider = provider
        self.outward = outward
        self.breaker = breaker
        self.name = name
        self.weight = weight
        self.in_flight = 0
        self._key = key

    async def credentials(self) -> RawHeaders:
        """The lines that the owner's function gives for each call; none where there is no such."""
        auth = self.provider.upstream.auth
        if not callable(auth):
            return []
        lines = auth(self._key)
        if inspect.isawaitable(lines):
            lines = await lines
        check_header_lines("auth", lines)
        return [(name.lower().encode(), value.encode("latin-1")) for name, value in lines.items()]

    def __repr__(self) -> str:
        return f"Lane({self.name})"


def _own_name(names: Mapping[str, str | None] | None, model: str) -> str | None:
    if names is None:
        return model
    if model in names:
        return names[model] or model
    found = [name for name in names if matches(model, [name])]
    return (names[max(found, key=len)] or model) if found else None
