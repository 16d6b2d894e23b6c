"""For any request: the typed decoder takes no more than the judge does, and finds the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.judge import below
from ai_proxy_mw.schema.tables import TABLES
from tests.schema.doors import REFUSED, decode, judge, plain
from tests.schema.strategies import ANYTHING, Place, broken, places, valid

ENDPOINTS = sorted(TABLES)

quick = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@quick
@given(data=st.data())
def test_both_take_what_is_valid(endpoint: str, data: st.DataObject) -> None:
    body = data.draw(valid(TABLES[endpoint].body))
    assert plain(decode(endpoint, body)) == plain(judge(endpoint, body))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@quick
@given(data=st.data())
def test_one_change_is_named_or_harmless(endpoint: str, data: st.DataObject) -> None:
    table = TABLES[endpoint].body
    body = json.loads(json.dumps(data.draw(valid(table))))
    place = data.draw(st.sampled_from(list(places(table, body))))
    _spoil(place, data.draw(_SPOILT))
    param = _agree(endpoint, body)
    assert param is None or _is_near(param, place)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@quick
@given(body=ANYTHING)
def test_nothing_else_is_raised(endpoint: str, body: Any) -> None:
    _agree(endpoint, body)


_GONE = object()

_SPOILT = st.one_of(
    st.just(_GONE),
    ANYTHING,
    st.sampled_from([-(10**20), -3, -0.5, 0, 0.5, 1.0, 1025, 10**20, 1e300]),
    st.sampled_from(["", "a" * 40_000, [], {}, [1, "a"], {"type": "text"}, {"type": "brand_new"}]),
)


def _spoil(place: Place, value: Any) -> None:
    if value is not _GONE:
        place.holder[place.step] = value
    elif isinstance(place.holder, dict):
        place.holder.pop(place.step, None)
    else:
        place.holder.pop()


def _agree(endpoint: str, body: Any) -> str | None:
    """What the judge finds wrong, None if nothing; what the typed decoder takes, it sees alike."""
    try:
        seen = decode(endpoint, body)
    except REFUSED:
        seen = None
    try:
        found = judge(endpoint, body)
    except InvalidRequest as error:
        assert seen is None, "the typed decoder takes what the judge refuses"
        return str(error.param)
    assert seen is None or plain(seen) == plain(found)
    return None


def _is_near(param: str, place: Place) -> bool:
    """Whether an error names the change, something in it, what it is in, or what a rule says."""
    if _is_in(param, place.within) or _is_in(place.within, param):
        return True
    problems = [(broken(kind, value), at) for kind, value, at in place.above]
    return any(problem and below(at, problem.name) == param for problem, at in problems)


def _is_in(inner: str, outer: str) -> bool:
    return not outer or inner == outer or inner.startswith((f"{outer}.", f"{outer}["))
