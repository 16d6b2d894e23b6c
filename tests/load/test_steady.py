"""A steady rate of calls, with all of the corridor: each is answered, and rightly.

How quickly is not asserted here: that is the machine's; `python -m benchmarks.steady` measures it.
"""

from __future__ import annotations

import pytest

from benchmarks.steady import measure

pytestmark = pytest.mark.slow

RATE = 100
SECONDS = 5


def test_calls_that_come_at_a_steady_rate_are_all_answered() -> None:
    found = measure(rate=RATE, direct_rate=10, seconds=SECONDS)
    assert found.proxy.errors == found.direct.errors == 0
    assert found.proxy.requests == RATE * SECONDS
    assert 0.25 < found.proxy.hits / found.proxy.requests < 0.35
    assert found.direct.hits == 0
