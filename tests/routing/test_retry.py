"""The retry policy as it is written."""

from __future__ import annotations

from typing import Any

import pytest

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._retry import DEFAULT_ON, Retry


def test_what_it_is_by_itself() -> None:
    retry = Retry()
    assert (retry.attempts, retry.total, retry.backoff, retry.cap) == (3, 30.0, 0.5, 30.0)
    assert retry.on == {"connect", "busy", "reset", 408, 409, 429, 500, 502, 503, 504}
    assert (retry.unsafe, retry.respect_retry_after, retry.budget) == (frozenset(), True, 0.1)
    assert retry.listed == DEFAULT_ON
    assert Retry() == retry
    assert hash(Retry()) == hash(retry)
    assert "listed" not in repr(retry)


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, iter, dict.fromkeys])
def test_any_iterable_is_taken_and_kept(kind: Any) -> None:
    retry = Retry(on=kind([500, "connect"]), unsafe=kind(["timeout"]))
    assert retry.on == frozenset({500, "connect"})
    assert isinstance(retry.on, frozenset)
    assert retry.unsafe == frozenset({"timeout"})
    assert isinstance(retry.unsafe, frozenset)
    assert retry.listed == {500, "connect", "timeout"}


@pytest.mark.parametrize(
    "good",
    [
        {"attempts": 1},
        {"attempts": 100},
        {"total": 1, "backoff": 0, "cap": 0},
        {"total": 86400},
        {"on": []},
        {"on": [400, 599, "bad_response"]},
        {"unsafe": ["reset", "timeout", "bad_response"]},
        {"budget": 1},
        {"budget": None},
        {"respect_retry_after": False},
    ],
)
def test_what_may_be_written(good: dict[str, Any]) -> None:
    Retry(**good)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        *(({"attempts": value}, "from 1") for value in (0, -1, 101, 2.0, True, "3", None)),
        *(
            ({name: value}, "a day at most")
            for name in ("total", "backoff", "cap")
            for value in (-0.1, 86401, float("inf"), float("nan"), True, "1", None, 10**400)
        ),
        ({"total": 0}, "attempts=1"),
        ({"total": 0.0}, "attempts=1"),
        *(
            ({"on": value}, "statuses from 400 to 599")
            for value in ("reset", b"reset", 500, None, [399], [600], [True], ["500"], ["Reset"])
        ),
        ({"on": [500.0]}, "statuses from 400 to 599"),
        ({"on": [[500]]}, "statuses from 400 to 599"),
        *(
            ({"unsafe": value}, "some of")
            for value in ("reset", ["connect"], ["busy"], [500], [None], None, [["reset"]])
        ),
        *(({"respect_retry_after": value}, "True or False") for value in (1, None, "yes")),
        *(({"budget": value}, "0.1 for 10 %") for value in (0, -0.1, 1.5, 10, True, "0.1")),
        ({"budget": float("nan")}, "0.1 for 10 %"),
    ],
)
def test_what_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        Retry(**wrong)
    assert next(iter(wrong)) in str(caught.value)


def test_it_stays_as_it_is() -> None:
    with pytest.raises(AttributeError):
        Retry().attempts = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Retry(5)  # type: ignore[call-arg]
