"""How long calls have taken, counted in classes that can be added up.

The classes are those of DDSketch (Masson, Rim and Lee: "DDSketch: a fast and fully-mergeable
quantile sketch with relative-error guarantees", PVLDB 12(12), 2019): each is 4 % wider than the
one before, so whatever is in it differs by at most 2 % from the value that stands for it. Unlike
means or percentiles, counts of many processes and hours make exactly that of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log

ACCURACY = 0.02
"""By how much a percentile may be wrong, as a part of it."""

LEAST, MOST = 0.001, 1000.0
"""Seconds; what is quicker or slower counts as these."""

_RATIO = (1 + ACCURACY) / (1 - ACCURACY)
_SCALE = 1 / log(_RATIO)
_MIDDLE = 2 * LEAST / (_RATIO + 1)

LAST = ceil(log(MOST / LEAST) * _SCALE)
"""The number of the last class; the first is 0."""


def class_of(seconds: float) -> int:
    """The class that a time belongs to."""
    if seconds <= LEAST:
        return 0
    return ceil(log(seconds / LEAST) * _SCALE) if seconds < MOST else LAST


def seconds_of(number: int) -> float:
    """What stands for the times of a class."""
    return _MIDDLE * _RATIO**number if number else LEAST


def percentile(counts: Mapping[int, int], part: float) -> float | None:
    """The time that `part` of all (0 to 1) have not exceeded; None where there are none."""
    total = sum(counts.values())
    if not total:
        return None
    left = part * (total - 1)
    numbers = iter(sorted(counts))
    number = next(numbers)
    while (left := left - counts[number]) >= 0:
        number = next(numbers)
    return seconds_of(number)
