"""On what terms a proxy serves a call: how long it waits for whom, and what a leaving ends."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._numbers import is_number
from ai_proxy_mw._stop import Stop

OnDisconnect = Literal["cancel", "drain"]

FOREVER = float("inf")


class Terms(NamedTuple):
    """All in seconds.

    keepalive: of silence in an event stream, before the caller is sent a comment.
    write: that the caller may take for a piece of the answer.
    drain_max: that a call goes on without its caller; None if it ends with him.
    """

    keepalive: float
    write: float
    drain_max: float | None
    stop: Stop


def terms_of(
    *,
    keepalive: float | None,
    write: float,
    on_disconnect: OnDisconnect,
    drain_max: float,
    drain: float,
    follow_signals: bool,
) -> Terms:
    """Raises ConfigurationError."""
    if on_disconnect not in ("cancel", "drain"):
        raise ConfigurationError(f"on_disconnect={on_disconnect!r}: write 'cancel' or 'drain'")
    if keepalive is not None and (not is_number(keepalive) or keepalive <= 0):
        raise ConfigurationError(f"keepalive={keepalive!r}: write seconds above 0, None for never")
    if not is_number(drain_max) or drain_max <= 0:
        raise ConfigurationError(f"drain_max={drain_max!r}: write a number of seconds above 0")
    if not is_number(drain) or drain < 0:
        raise ConfigurationError(f"drain={drain!r}: write seconds, 0 for none")
    return Terms(
        FOREVER if keepalive is None else keepalive,
        write,
        drain_max if on_disconnect == "drain" else None,
        Stop(drain=drain, signals=bool(follow_signals)),
    )
