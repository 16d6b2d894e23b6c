"""Under which key a count is kept."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from ai_proxy_mw._limits import Limit

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request


def owner(limit: Limit, request: Request) -> str | None:
    """Whose count a call goes to; None if the limit is not for it."""
    per = limit.per
    if per == "subject":
        return _remembered(request.subject)
    if per == "ip":
        return _remembered(request.client or "unknown")
    model = "" if request.call is None else request.call.model or ""
    if per == "model":
        return digest(model)
    if per == "subject+model":
        return digest(request.subject, model)
    assert callable(per)
    found = per(request)
    return None if found is None else digest(found)


def base(app: str, limit: Limit, who: str) -> str:
    """The key without its window. Short, of letters, digits and `:`, as every store takes it."""
    return f"{'shared' if limit.shared else app}:{limit.id}:{who}"


@lru_cache(maxsize=4096)
def _remembered(text: str) -> str:
    # Only what is short: a model is whatever a caller writes, however long.
    return digest(text)


def digest(*parts: str) -> str:
    """One name for some texts, whatever they hold. Stores then hold no names of people, either."""
    text = parts[0] if len(parts) == 1 else "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
