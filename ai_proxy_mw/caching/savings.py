"""What a kept answer has cost once, and each hit saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ai_proxy_mw.accounting.costs import is_free
from ai_proxy_mw.accounting.hidden_usage import tell
from ai_proxy_mw.accounting.readers import reader_for

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.costs import Costs
    from ai_proxy_mw.caching.entry import Entry

_MOST = 4096
"""Answers of which it is kept in mind."""


class Saving(NamedTuple):
    input_tokens: int
    output_tokens: int
    micro_usd: int | None
    """None where no price is known."""


_NOTHING = Saving(0, 0, 0)
_UNKNOWN = Saving(0, 0, None)


class Savings:
    """Reads an answer for it when it is first given again: most never are."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._known: dict[tuple[str, float], Saving] = {}

    def of(self, entry: Entry) -> Saving:
        """What it has cost, as far as it is known."""
        which = (entry.key, entry.created)
        found = self._known.get(which)
        if found is None:
            if len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            found = self._known[which] = self._read(entry)
        return found

    def _read(self, entry: Entry) -> Saving:
        if is_free(entry.endpoint):
            return _NOTHING
        reader = reader_for(entry.endpoint, entry.status, entry.content_type, None)
        reader.chunk(entry.body)
        tell(reader, entry.aside)
        usage = reader.usage()
        if usage is None:
            return _UNKNOWN
        spent = self._costs.micro_usd(entry.model, usage)
        return Saving(usage.input_tokens, usage.output_tokens, spent)
