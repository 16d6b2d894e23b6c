"""What holds for any request: the typed decoder takes no more than the judge, and finds the same."""

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
    max_examples=40,
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
    try:
        found = judge(endpoint, body)
    except InvalidRequest as error:
        assert _is_near(str(error.param), place)
        with pytest.raises(REFUSED):
            decode(endpoint, body)
    else:
        _agree(endpoint, body, found)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@quick
@given(body=ANYTHING)
def test_nothing_else_is_raised(endpoint: str, body: Any) -> None:
    try:
        found = judge(endpoint, body)
    except InvalidRequest:
        with pytest.raises(REFUSED):
            decode(endpoint, body)
    else:
        _agree(endpoint, body, found)


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


def _agree(endpoint: str, body: Any, found: Any) -> None:
    """The typed decoder need not take what is new; what it takes, it sees alike."""
    try:
        seen = decode(endpoint, body)
    except REFUSED:
        return
    assert plain(seen) == plain(found)


def _is_near(param: str, place: Place) -> bool:
    """Whether an error names the change, something in it, what it is in, or what a rule says."""
    if _is_in(param, place.param) or _is_in(place.param, param):
        return True
    if isinstance(place.step, int) and _is_in(place.param.rpartition("[")[0], param):
        return True
    ruled = [(broken(kind, value), at) for kind, value, at in place.above]
    return any(problem and below(at, problem.name) == param for problem, at in ruled) or any(
        _is_in(param, at) for _, value, at in place.above if place.holder is value
    ) & (place.step in ("type", "role"))


def _is_in(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith((f"{outer}.", f"{outer}["))
