"""What follows a failure: the whole table, and what holds whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw._retry import DEFAULT_ON, Kind, Retry
from ai_proxy_mw.routing.decide import Again, Attempt, GiveUp, Next, Policy
from ai_proxy_mw.routing.outcome import Outcome

KINDS = get_args(Kind)


class Asked:
    """Grants or denies repeats, and counts."""

    def __init__(self, grants: bool = True) -> None:
        self.grants = grants
        self.times = 0

    def __call__(self) -> bool:
        self.times += 1
        return self.grants


def policy(
    retry: Retry | None = None,
    *,
    now: float = 0.0,
    random: float = 0.5,
    may_repeat: Callable[[], bool] | None = None,
) -> Policy:
    return Policy(
        retry or Retry(),
        clock=lambda: now,
        random=lambda: random,
        may_repeat=may_repeat or Asked(),
    )


FIRST: Attempt[str] = Attempt(number=1, began=0.0, repeatable=True, safe=False)
BOTH = replace(FIRST, untried=["b", "c"], later=["d", "e"])
LATER = replace(FIRST, later=["d", "e"])


def decided(attempt: Attempt[str], outcome: Outcome, **rest: Any) -> Again | Next[str] | GiveUp:
    return policy(**rest).decide(attempt, outcome)


# -- which failures ------------------------------------------------------------------------------


def test_each_failure_by_itself() -> None:
    for what in (*range(200, 600), *KINDS):
        found = [decided(each, Outcome(what)) for each in (FIRST, BOTH, LATER)]
        if what in DEFAULT_ON:
            assert found == [Again(0.25), Next("b"), Again(0.25)], what
        elif what in (401, 402, 403):
            assert found == [GiveUp("final"), Next("b"), Next("d")], what
        else:
            assert found == [GiveUp("final")] * 3, what


@pytest.mark.parametrize("what", KINDS)
def test_kinds_that_are_unsafe_count_as_listed(what: str) -> None:
    if what in ("connect", "busy"):
        return
    retry = Retry(on=[], unsafe=[what])
    assert decided(FIRST, Outcome(what), retry=retry) == Again(0.25)
    assert decided(FIRST, Outcome(what), retry=Retry(on=[])) == GiveUp("final")


@pytest.mark.parametrize(
    ("attempt", "what", "wish", "expected"),
    [
        (FIRST, 400, True, Again(0.25)),
        (FIRST, 401, True, Again(0.25)),
        (BOTH, 400, True, Next("b")),
        (FIRST, 200, True, GiveUp("final")),
        (BOTH, 399, True, GiveUp("final")),
        (FIRST, "timeout", True, GiveUp("final")),
        (FIRST, 500, True, Again(0.25)),
        (FIRST, 500, False, GiveUp("unwanted")),
        (LATER, 500, False, Next("d")),
        (BOTH, 500, False, Next("b")),
        (BOTH, 400, False, GiveUp("final")),
        (FIRST, 401, False, GiveUp("final")),
        (BOTH, 401, False, Next("b")),
        (LATER, 401, False, Next("d")),
    ],
)
def test_what_the_upstream_says(
    attempt: Attempt[str], what: int | str, wish: bool, expected: object
) -> None:
    assert decided(attempt, Outcome(what, should_retry=wish)) == expected


def test_an_account_that_is_listed_is_asked_again() -> None:
    assert decided(FIRST, Outcome(403), retry=Retry(on=[403])) == Again(0.25)


# -- what may not happen twice -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "worked", "safe", "listed", "repeatable"),
    list(product(KINDS, [False, True], [False, True], [False, True], [False, True])),
)
@pytest.mark.parametrize("attempt", [FIRST, BOTH, LATER])
def test_what_may_have_worked(
    attempt: Attempt[str], what: str, worked: bool, safe: bool, listed: bool, repeatable: bool
) -> None:
    unsafe = {what} & {"reset", "timeout", "bad_response"} if listed else set()
    found = decided(
        replace(attempt, safe=safe, repeatable=repeatable),
        Outcome(what, worked),
        retry=Retry(on=KINDS, unsafe=unsafe),
    )
    if not repeatable:
        assert found == GiveUp("consumed")
    elif worked and not safe and not unsafe:
        assert found == GiveUp("may_have_worked")
    else:
        assert found == (Next("b") if attempt is BOTH else Again(0.25))


# -- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "began", "deadline", "late"),
    [
        (30.0, 0.0, None, True),
        (29.9, 0.0, None, False),
        (129.9, 100.0, None, False),
        (130.0, 100.0, None, True),
        (5.0, 0.0, 5.0, True),
        (4.9, 0.0, 5.0, False),
        (30.0, 0.0, 100.0, True),
        (1.0, 0.0, -1.0, True),
    ],
)
@pytest.mark.parametrize("what", [500, 401])
def test_nothing_begins_after_its_time(
    now: float, began: float, deadline: float | None, late: bool, what: int
) -> None:
    attempt = replace(BOTH, began=began, deadline=deadline)
    found = decided(attempt, Outcome(what), now=now)
    assert found == (GiveUp("too_late") if late else Next("b"))


@pytest.mark.parametrize(
    ("number", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 20.0), (98, 20.0)]
)
@pytest.mark.parametrize("random", [0.0, 0.25, 0.999])
def test_pauses_are_drawn_below_a_ceiling_that_doubles(
    number: int, ceiling: float, random: float
) -> None:
    retry = Retry(attempts=100, cap=20, total=1000)
    found = decided(replace(FIRST, number=number), Outcome(500), retry=retry, random=random)
    assert found == Again(random * ceiling)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (0.0, Again(0.25)),
        (0.1, Again(0.25)),
        (3.0, Again(3.0)),
        (10.0, Again(10.0)),
        (10.1, GiveUp("pause")),
    ],
)
def test_an_upstream_that_asks_for_a_pause(asked: float, expected: object) -> None:
    retry = Retry(cap=10)
    outcome = Outcome(429, retry_after=asked)
    assert decided(FIRST, outcome, retry=retry) == expected
    assert decided(BOTH, outcome, retry=retry) == Next("b")  # which has asked for none
    late = Next("d") if expected == GiveUp("pause") else expected
    assert decided(LATER, outcome, retry=retry) == late
    heedless = Retry(cap=10, respect_retry_after=False)
    assert decided(FIRST, outcome, retry=heedless) == Again(0.25)


@pytest.mark.parametrize(
    ("now", "deadline", "fits"),
    [(0.0, 5.1, True), (0.0, 5.0, False), (24.9, None, True), (25.0, None, False)],
)
def test_a_pause_must_end_in_time(now: float, deadline: float | None, fits: bool) -> None:
    for attempt, otherwise in ((FIRST, GiveUp("pause")), (LATER, Next("d"))):
        found = decided(replace(attempt, deadline=deadline), Outcome(503, False, 5.0), now=now)
        assert found == (Again(5.0) if fits else otherwise)


# -- how often -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempts", "number", "again"),
    [(1, 1, False), (2, 1, True), (2, 2, False), (3, 2, True), (3, 3, False), (3, 4, False)],
)
def test_attempts_bound_a_group(attempts: int, number: int, again: bool) -> None:
    retry = Retry(attempts=attempts)
    for attempt, otherwise in ((FIRST, GiveUp("attempts")), (LATER, Next("d")), (BOTH, Next("b"))):
        found = decided(replace(attempt, number=number), Outcome(500), retry=retry)
        if attempt is BOTH:  # each of its lanes is asked once, however many there are
            assert found == Next("b")
        else:
            assert isinstance(found, Again) if again else found == otherwise


def test_the_budget_is_asked_for_repeats_only_and_last() -> None:
    denies = Asked(False)
    assert decided(FIRST, Outcome(500), may_repeat=denies) == GiveUp("budget")
    assert decided(LATER, Outcome(500), may_repeat=denies) == Next("d")
    assert denies.times == 2
    untouched = Asked()
    for attempt, outcome in [
        (BOTH, Outcome(500)),
        (FIRST, Outcome(400)),
        (FIRST, Outcome(500, retry_after=31)),
        (FIRST, Outcome("reset", True)),
        (FIRST, Outcome(500, should_retry=False)),
        (LATER, Outcome(401)),
        (replace(FIRST, number=3), Outcome(500)),
        (replace(FIRST, repeatable=False), Outcome(500)),
    ]:
        decided(attempt, outcome, may_repeat=untouched)
    assert untouched.times == 0


# -- whatever happens ----------------------------------------------------------------------------

SECONDS = st.floats(0, 100)
RETRIES = st.builds(
    Retry,
    attempts=st.integers(1, 6),
    total=st.floats(0.1, 100),
    backoff=SECONDS,
    cap=SECONDS,
    on=st.sets(st.sampled_from([408, 429, 500, 503, *KINDS])),
    unsafe=st.sets(st.sampled_from(["reset", "timeout", "bad_response"])),
    respect_retry_after=st.booleans(),
)
ANSWERS = st.builds(
    Outcome,
    st.sampled_from([200, 400, 401, 403, 408, 429, 500, 503]),
    st.just(False),
    st.none() | SECONDS,
    st.none() | st.booleans(),
)
ERRORS = st.builds(Outcome, st.sampled_from(KINDS), st.booleans())
OUTCOMES = ANSWERS | ERRORS
LANES = st.lists(st.text("abc", max_size=2), max_size=3)
ATTEMPTS = st.builds(
    Attempt,
    number=st.integers(1, 8),
    began=SECONDS,
    deadline=st.none() | SECONDS,
    repeatable=st.booleans(),
    safe=st.booleans(),
    untried=LANES,
    later=LANES,
)


@given(RETRIES, ATTEMPTS, OUTCOMES, SECONDS, st.floats(0, 1, exclude_max=True), st.booleans())
def test_what_always_holds(
    retry: Retry,
    attempt: Attempt[str],
    outcome: Outcome,
    now: float,
    random: float,
    grants: bool,
) -> None:
    asked = Asked(grants)
    found = policy(retry, now=now, random=random, may_repeat=asked).decide(attempt, outcome)
    same = policy(retry, now=now, random=random, may_repeat=Asked(grants)).decide(attempt, outcome)
    assert found == same
    assert asked.times == (isinstance(found, Again) or found == GiveUp("budget")) or (
        not grants and found == Next(attempt.later[0])
    )
    if isinstance(found, GiveUp):
        return
    total_at = attempt.began + retry.total
    until = min(total_at, total_at if attempt.deadline is None else attempt.deadline)
    assert attempt.repeatable
    assert now < until
    if outcome.may_have_worked:
        assert attempt.safe or outcome.what in set(retry.unsafe)
    if isinstance(found, Next):
        assert found.lane == [*attempt.untried, *attempt.later][0]
        return
    assert 0 <= found.after <= retry.cap
    assert now + found.after <= until + 1e-9
    assert attempt.number < retry.attempts
    assert not attempt.untried
    assert outcome.should_retry is not False
    if retry.respect_retry_after and outcome.retry_after is not None:
        assert found.after >= outcome.retry_after


@given(
    RETRIES,
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.data(),
    st.booleans(),
    st.none() | st.floats(0, 50),
)
def test_every_call_comes_to_an_end(
    retry: Retry,
    groups: Sequence[int],
    data: st.DataObject,
    safe: bool,
    deadline: float | None,
) -> None:
    """Drive a call through its groups, whatever its sends come to and however long they take."""
    now = 0.0
    route = [[(group, lane) for lane in range(size)] for group, size in enumerate(groups)]
    decider = Policy(
        retry,
        clock=lambda: now,
        random=lambda: data.draw(st.floats(0, 1, exclude_max=True)),
        may_repeat=lambda: data.draw(st.booleans()),
    )
    here, untried, sends = 0, route[0][1:], [1] + [0] * (len(route) - 1)
    until = min(retry.total, retry.total if deadline is None else deadline)
    while True:
        now += data.draw(st.floats(0, 5))
        outcome = data.draw(OUTCOMES)
        attempt: Attempt[tuple[int, int]] = Attempt(
            number=sends[here],
            began=0.0,
            deadline=deadline,
            repeatable=True,
            safe=safe,
            untried=untried,
            later=route[here + 1] if here + 1 < len(route) else [],
        )
        found = decider.decide(attempt, outcome)
        if isinstance(found, GiveUp):
            break
        if isinstance(found, Again):
            now += found.after
        else:
            here = found.lane[0]
            untried = [lane for lane in route[here] if lane[1] > found.lane[1]]
        sends[here] += 1
        assert now <= until + 1e-9
        for count, size in zip(sends, groups, strict=True):
            assert count <= max(retry.attempts, size)
