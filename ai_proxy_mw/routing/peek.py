"""Placeholder."""

from __future__ import annotations

from typing import Any

from ai_proxy_mw.routing.outcome import Outcome


class _Found:
    outcome: Outcome | None = None


async def peek(response: Any, endpoint: str, *, seconds: float) -> _Found:
    return _Found()


def looks_wrong(response: Any, endpoint: str) -> bool:
    return False
