"""Names that may stand on a metric, where each further one costs memory for as long as it runs."""

from __future__ import annotations

from ai_proxy_mw.metrics.genai_names import OTHER

LONGEST = 256
"""Characters."""


class KnownNames:
    """The first names that have proved to be some, up to `most`; all the rest are one."""

    __slots__ = ("_most", "_names")

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def learn(self, name: str | None) -> None:
        if name is None or name in self._names:
            return
        if len(name) <= LONGEST and len(self._names) < self._most:
            self._names.add(name)

    def told(self, name: str) -> str:
        """The name, if it is known."""
        return name if name in self._names else OTHER
