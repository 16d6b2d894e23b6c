"""What has become of a call: who answered, how often was asked, what that has cost besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.accounting.usage import Usage


class Told(NamedTuple):
    """Whom a call was sent to.

    asked, model: the model that was asked for, and the upstream's own name for it; None where the
        call names none. instead: whether it is another one than the caller has asked for.
    """

    upstream: str
    asked: str | None
    model: str | None
    instead: bool

    @property
    def model_names(self) -> tuple[str, str] | None:
        """As it was asked for, and as the upstream calls it."""
        return None if self.asked is None or self.model is None else (self.asked, self.model)


class Served:
    """One for each call that may be sent more than once.

    by: whose answer or error it is; None before there is one.
    attempts: how often the call was sent.
    unanswered: how many of those an upstream may work on, or may have worked on, without giving an
        answer: what went in may have to be paid for.
    lost: what answers have used that nobody was given.
    """

    __slots__ = ("attempts", "by", "lost", "unanswered")

    def __init__(self) -> None:
        self.by: Told | None = None
        self.attempts = 0
        self.unanswered = 0
        self.lost: list[tuple[Told, Usage]] = []

    def lines(self) -> RawHeaders:
        """Header lines that tell of it."""
        told = [(b"x-ai-proxy-attempts", b"%d" % self.attempts)]
        if self.by is not None:
            told.append((b"x-ai-proxy-upstream", self.by.upstream.encode("ascii")))
            if self.by.instead and self.by.asked is not None:
                told.append((b"x-ai-proxy-model", self.by.asked.encode("ascii", "replace")))
        return told
