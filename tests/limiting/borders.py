"""Windows are aligned to the clock: rates whose next border is far from the present moment."""

from __future__ import annotations

import time

_PERIODS = (60, 61, 67, 71)
"""Minutes. Their borders meet so seldom that one of them is always far away."""


def calm_rate(amount: int | str) -> str:
    """So much in about an hour, in a window that does not end while a test runs."""
    now = time.time()
    minutes = max(_PERIODS, key=lambda period: period * 60 - now % (period * 60))
    return f"{amount}/{minutes} minutes"
