"""How much one call may ask for, whatever its caller's budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ai_proxy_mw._errors import ConfigurationError

OnExcess = Literal["clamp", "refuse"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """The most that a call may ask for; None for no cap.

    max_output_tokens: of the answer. A call that names no maximum gets this one.
    on_excess: what becomes of a call that names more: `clamp` lowers it, `refuse` answers 400.
    max_n: answers to one question.
    max_messages: of a conversation.
    tools: whether tools may be given.

    Raises ConfigurationError.
    """

    max_output_tokens: int | None = None
    on_excess: OnExcess = "clamp"
    max_n: int | None = None
    max_messages: int | None = None
    tools: bool = True

    def __post_init__(self) -> None:
        for name in ("max_output_tokens", "max_n", "max_messages"):
            amount = getattr(self, name)
            if amount is not None and (type(amount) is not int or amount < 1):
                raise ConfigurationError(f"Caps({name}={amount!r}): write a whole number from 1")
        if self.on_excess not in get_args(OnExcess):
            raise ConfigurationError(
                f"Caps(on_excess={self.on_excess!r}): write one of {get_args(OnExcess)}"
            )
        if not isinstance(self.tools, bool):
            raise ConfigurationError(f"Caps(tools={self.tools!r}): write True or False")
