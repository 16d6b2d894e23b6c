"""One lane's circuit, by a clock that is moved by hand."""

from __future__ import annotations

import logging

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ai_proxy_mw._circuit import Circuit
from ai_proxy_mw.routing.breaker import HELD_BACK, LONGEST_COOLING, LONGEST_PROBE, SOON, Breaker

CIRCUIT = Circuit(calls=4, ratio=0.5, window=30, open_for=10, longest=35)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(CIRCUIT, name="openai#2", clock=clock)


def _fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(breaker.begin())


def _succeed(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.succeeded(breaker.begin())


def _half_open(breaker: Breaker, clock: Clock) -> None:
    _fail(breaker, 4)
    clock.now += 10
    assert breaker.state == "half_open"


def test_it_opens_when_of_enough_calls_too_many_fail(breaker: Breaker) -> None:
    _fail(breaker, 3)
    assert (breaker.available, breaker.state) == (True, "closed")
    _fail(breaker)
    assert (breaker.available, breaker.state) == (False, "open")
    assert (breaker.begin(), breaker.wait, breaker.opened) == (0, 10.0, 1)


def test_it_bears_fewer_than_its_ratio(breaker: Breaker) -> None:
    _succeed(breaker, 4)
    _fail(breaker, 3)
    assert (breaker.state, breaker.calls, breaker.failures) == ("closed", 7, 3)
    _fail(breaker)
    assert breaker.state == "open"


def test_a_success_does_not_open_it(breaker: Breaker) -> None:
    _fail(breaker, 3)
    _succeed(breaker, 1)
    assert breaker.state == "closed"


def test_failures_that_are_older_than_the_window_are_forgotten(
    breaker: Breaker, clock: Clock
) -> None:
    _fail(breaker, 3)
    clock.now += 30
    assert (breaker.calls, breaker.failures) == (0, 0)
    _fail(breaker)
    assert (breaker.state, breaker.failures) == ("closed", 1)


def test_one_probe_tries_it_and_closes_it(breaker: Breaker, clock: Clock) -> None:
    _half_open(breaker, clock)
    assert (breaker.available, breaker.wait) == (True, 0.0)
    probe = breaker.begin()
    assert probe
    assert (breaker.available, breaker.begin(), breaker.wait) == (False, 0, SOON)
    breaker.succeeded(probe)
    assert (breaker.available, breaker.state) == (True, "closed")
    assert (breaker.calls, breaker.failures) == (0, 0)  # what was before counts no more


def test_each_probe_in_vain_doubles_the_time_up_to_the_longest(
    breaker: Breaker, clock: Clock
) -> None:
    _half_open(breaker, clock)
    for seconds in (20.0, 35.0, 35.0):
        _fail(breaker)
        assert (breaker.state, breaker.wait) == ("open", seconds)
        clock.now += seconds
    _succeed(breaker)
    _fail(breaker, 4)
    assert breaker.wait == 10.0  # begins anew


def test_several_probes_at_a_time_and_the_first_to_end_decides(clock: Clock) -> None:
    breaker = Breaker(Circuit(calls=1, probes=3, longest=300), name="openai", clock=clock)
    _fail(breaker)
    clock.now += 10
    probes = [breaker.begin() for _ in range(5)]
    assert [bool(probe) for probe in probes] == [True, True, True, False, False]
    breaker.failed(probes[0])
    assert breaker.wait == 20.0
    for late in probes[1:]:
        breaker.failed(late)
        breaker.succeeded(late)
    assert (breaker.state, breaker.wait, breaker.opened) == ("open", 20.0, 2)


def test_calls_from_before_it_opened_tell_nothing(breaker: Breaker, clock: Clock) -> None:
    before = [breaker.begin() for _ in range(9)]
    for token in before[:4]:
        breaker.failed(token)
    breaker.succeeded(before[4])
    breaker.failed(before[5])
    assert (breaker.state, breaker.wait, breaker.opened) == ("open", 10.0, 1)
    clock.now += 10
    probe = breaker.begin()
    breaker.succeeded(before[6])
    assert breaker.state == "half_open"
    breaker.succeeded(probe)
    breaker.failed(before[7])
    assert (breaker.failures, breaker.calls) == (0, 0)


def test_a_call_that_its_caller_leaves_is_neither_good_nor_bad(
    breaker: Breaker, clock: Clock
) -> None:
    breaker.abandoned(breaker.begin())
    assert breaker.calls == 0
    _half_open(breaker, clock)
    breaker.abandoned(breaker.begin())
    assert (breaker.state, breaker.available) == ("half_open", True)


def test_a_probe_that_is_lost_gives_up_its_place(breaker: Breaker, clock: Clock) -> None:
    _half_open(breaker, clock)
    lost = breaker.begin()
    clock.now += 34.5
    assert (breaker.available, breaker.wait) == (False, 0.5)
    clock.now += 0.5
    assert (breaker.available, breaker.wait) == (True, 0.0)
    assert breaker.begin()
    assert (breaker.available, breaker.wait) == (False, SOON)
    breaker.succeeded(lost)  # was slow and not lost
    assert breaker.state == "closed"


def test_a_lost_probe_is_waited_for_ten_minutes_at_most(clock: Clock) -> None:
    breaker = Breaker(Circuit(calls=1, longest=86400), name="openai", clock=clock)
    _fail(breaker)
    clock.now += 10
    breaker.begin()
    clock.now += LONGEST_PROBE
    assert breaker.available


def test_what_is_not_let_through_tells_nothing(breaker: Breaker) -> None:
    _fail(breaker, 4)
    nothing = breaker.begin()
    breaker.succeeded(nothing)
    breaker.failed(nothing)
    breaker.abandoned(nothing)
    assert (breaker.state, breaker.wait) == ("open", 10.0)


@pytest.mark.parametrize("circuit", [CIRCUIT, None])
def test_it_cools_for_as_long_as_it_is_told(circuit: Circuit | None, clock: Clock) -> None:
    breaker = Breaker(circuit, name="openai", clock=clock)
    under_way = breaker.begin()
    breaker.cool(7)
    breaker.cool(3)  # shorter than what it was told before
    assert (breaker.state, breaker.available, breaker.wait) == ("cooling", False, 7.0)
    assert breaker.begin() == 0
    clock.now += 7
    assert (breaker.state, breaker.available, breaker.wait) == ("closed", True, 0.0)
    breaker.succeeded(under_way)
    assert breaker.calls == 1  # still of the same round


@pytest.mark.parametrize(("circuit", "most"), [(CIRCUIT, 35.0), (None, LONGEST_COOLING)])
def test_no_upstream_closes_off_a_lane_for_longer(
    circuit: Circuit | None, most: float, clock: Clock
) -> None:
    breaker = Breaker(circuit, name="openai", clock=clock)
    for nonsense in (0, -1, float("nan")):
        breaker.cool(nonsense)
    assert (breaker.available, breaker.coolings) == (True, 0)
    breaker.cool(float("inf"))
    assert (breaker.wait, breaker.coolings) == (most, 1)


def test_without_a_circuit_it_never_opens(clock: Clock) -> None:
    breaker = Breaker(None, name="openai", clock=clock)
    _fail(breaker, 100)
    breaker.learn_open(10)
    assert (breaker.state, breaker.failures) == ("closed", 100)


def test_a_lane_may_cool_while_it_is_open(breaker: Breaker, clock: Clock) -> None:
    _fail(breaker, 4)
    breaker.cool(15)
    assert (breaker.state, breaker.wait) == ("open", 15.0)
    clock.now += 10
    assert (breaker.state, breaker.wait, breaker.begin()) == ("cooling", 5.0, 0)
    clock.now += 5
    _succeed(breaker)
    breaker.cool(5)
    assert breaker.state == "cooling"


def test_what_others_find_counts_as_its_own(breaker: Breaker, clock: Clock) -> None:
    breaker.learn_open(15)
    breaker.learn_open(5)
    assert (breaker.state, breaker.wait, breaker.opened) == ("open", 15.0, 1)
    breaker.learn_open(20)
    clock.now += 20
    _fail(breaker)
    assert breaker.wait == 35.0  # doubled from theirs
    breaker.learn_closed()
    assert breaker.state == "closed"
    breaker.learn_closed()
    breaker.learn_open(float("nan"))
    breaker.learn_open(-1)
    assert breaker.available
    breaker.learn_open(1e9)
    assert breaker.wait == 35.0


def test_what_is_nearly_over_when_it_is_heard_of_does_not_shorten_the_next(
    breaker: Breaker, clock: Clock
) -> None:
    breaker.learn_open(0.5)
    clock.now += 0.5
    _fail(breaker)
    assert breaker.wait == 20.0


def test_it_cools_with_others(breaker: Breaker) -> None:
    breaker.learn_cooling(1e9)
    assert (breaker.state, breaker.wait, breaker.coolings) == ("cooling", 35.0, 0)


def test_it_lets_others_try_first_but_not_for_ever(breaker: Breaker, clock: Clock) -> None:
    breaker.hold_back(2)
    assert breaker.available
    _half_open(breaker, clock)
    held = 0.0
    while not breaker.available or not held:
        breaker.hold_back(2)
        clock.now += 1
        held += 1
    assert held == HELD_BACK


def test_who_has_begun_to_try_does_not_hold_back(breaker: Breaker, clock: Clock) -> None:
    _half_open(breaker, clock)
    breaker.begin()
    breaker.hold_back(2)
    assert breaker.state == "half_open"


def test_only_what_happens_here_is_told(clock: Clock) -> None:
    told: list[tuple[str, int, int]] = []

    def note(changed: Breaker) -> None:
        told.append((changed.state, changed.judgements, changed.coolings))

    breaker = Breaker(CIRCUIT, name="openai", clock=clock, on_change=note)
    breaker.learn_open(5)
    breaker.learn_closed()
    breaker.learn_cooling(1)
    clock.now += 1
    _fail(breaker, 4)
    clock.now += 10
    _fail(breaker)
    clock.now += 20
    _succeed(breaker)
    breaker.cool(1)
    assert told == [("open", 1, 0), ("open", 2, 0), ("closed", 3, 0), ("cooling", 3, 1)]


def test_it_says_so_once_for_each_incident(
    breaker: Breaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "ai_proxy_mw"):
        _half_open(breaker, clock)
        _fail(breaker)
        clock.now += 20
        _succeed(breaker)
        breaker.learn_open(5)
        breaker.learn_open(9)
    assert [record.getMessage() for record in caplog.records] == [
        "openai#2: fails too often, left alone for a while",
        "openai#2: answers again",
        "openai#2: fails in another process, left alone for a while",
    ]


def test_a_lane_that_another_thread_closes_off_meanwhile_stays_so(clock: Clock) -> None:
    breaker = Breaker(CIRCUIT, name="openai", clock=clock)
    breaker.cool(5)
    clock.now += 5

    class Meanwhile(Breaker):
        """Opens just before the lane is taken for clear."""

        def __setattr__(self, name: str, value: object) -> None:
            if name == "_is_clear" and value is True:
                self.__class__ = Breaker  # type: ignore[assignment]
                self.learn_open(10)
            object.__setattr__(self, name, value)

    breaker.__class__ = Meanwhile
    assert breaker.available  # for the one who asked a moment before
    assert (breaker.state, breaker.available) == ("open", False)


class Life(RuleBasedStateMachine):
    """Whatever happens: never more probes than allowed, never closed off for ever."""

    circuit = Circuit(calls=3, ratio=0.5, window=20, open_for=5, longest=40, probes=2)
    NEVER_LONGER = 40 + HELD_BACK

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(self.circuit, name="openai", clock=self.clock)
        self.calls: list[int] = []
        self.probes: dict[int, float] = {}

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 4.9, 5.0, 39.0, 41.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def a_call_begins(self) -> None:
        available, state = self.breaker.available, self.breaker.state
        assert available == (self.breaker.wait == 0)
        token = self.breaker.begin()
        assert bool(token) == available
        if not token:
            return
        self.calls.append(token)
        if state == "half_open":
            self.probes[token] = self.clock.now + self.circuit.longest
            under_way = [due for due in self.probes.values() if due > self.clock.now]
            assert len(under_way) <= self.circuit.probes

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "failed", "abandoned"]))
    def a_call_ends(self, data: st.DataObject, how: str) -> None:
        token = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        before, wait = self.breaker.state, self.breaker.wait
        getattr(self.breaker, how)(token)
        if before == "open":
            if token not in self.probes:
                assert (self.breaker.state, self.breaker.wait) == (before, wait)
        elif before == "half_open" and how == "succeeded" and token not in self.probes:
            assert self.breaker.state == "half_open"
        self.probes.pop(token, None)
        if self.breaker.state != "half_open":
            self.probes.clear()

    @rule(seconds=st.sampled_from([1.0, 10.0, 1e6]))
    def others_tell(self, seconds: float) -> None:
        self.breaker.learn_open(seconds)

    @rule()
    def others_try_well(self) -> None:
        self.breaker.learn_closed()
        self.probes.clear()

    @rule(seconds=st.sampled_from([1.0, 10.0, 1e6]))
    def it_cools(self, seconds: float) -> None:
        self.breaker.cool(seconds)

    @rule()
    def others_go_first(self) -> None:
        self.breaker.hold_back(2)

    @rule()
    def what_is_under_way_is_lost(self) -> None:
        self.calls.clear()

    @invariant()
    def it_is_not_closed_off_for_long(self) -> None:
        assert 0 <= self.breaker.wait <= self.NEVER_LONGER

    @invariant()
    def the_window_adds_up(self) -> None:
        window = self.breaker._window
        assert window.calls == sum(window._calls) >= window.failures == sum(window._failures) >= 0

    def teardown(self) -> None:
        self.clock.now += self.NEVER_LONGER
        self.clock.now += self.circuit.longest
        assert self.breaker.available


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
