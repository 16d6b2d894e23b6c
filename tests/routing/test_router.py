"""Which lanes a call may take, and in which order."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from ai_proxy_mw import ConfigurationError
from ai_proxy_mw._errors import InvalidRequest, NotFound
from ai_proxy_mw.routing.lane import Lane
from ai_proxy_mw.routing.router import Router
from tests.routing.scripted import lane, request

RESPONSES = "POST /responses"


def names(groups: Any) -> list[tuple[list[str], str | None, bool]]:
    return [([lane.name for lane in lanes], model, instead) for lanes, model, instead in groups]


def router(*lanes: Lane, **fallback: list[str]) -> Router:
    return Router(lanes, fallback)


def test_groups_are_by_priority_and_then_by_model() -> None:
    a, b, c = lane("a", priority=1), lane("b"), lane("c", models=["n"])
    found = router(a, b, c, m=["n", "m", "n"]).groups(request("m"))
    assert names(found) == [
        (["b"], "m", False),
        (["a"], "m", False),
        (["c"], "n", True),  # it names the model, which goes before priority
        (["b"], "n", True),
        (["a"], "n", True),
    ]


def test_fallbacks_are_by_name_or_by_the_longest_pattern() -> None:
    one = Router([lane("a")], {"gpt-*": ["x"], "gpt-4*": ["y"], "gpt-4": ["z"]})
    for model, other in (("gpt-3", "x"), ("gpt-4o", "y"), ("gpt-4", "z"), ("claude", None)):
        models = [group.model for group in one.groups(request(model))]
        assert models == [model] + ([other] if other else [])


def test_a_model_that_nobody_has_is_told() -> None:
    one = router(lane("a", models=["x"]), lane("b", endpoints={"POST /embeddings"}))
    for model in ("y", "\u00e9\n\x00", "m" * 10_000_000, "x,y"):
        with pytest.raises(NotFound) as caught:
            one.groups(request(model))
        assert caught.value.code == "model_not_found"
        assert len(caught.value.body()) < 2000


def test_a_call_that_names_no_model_goes_where_none_is_needed() -> None:
    by_model = lane("a", base_url="http://a.test/{model}")
    assert names(router(by_model, lane("b")).groups(request(None))) == [(["b"], None, False)]
    with pytest.raises(InvalidRequest) as caught:
        router(by_model).groups(request(None))
    assert caught.value.param == "model"
    assert caught.value.code == "missing_required_parameter"


@pytest.mark.parametrize("endpoint", ["GET /files", "POST /files", "GET /models", "DELETE /x"])
def test_what_runs_no_model_goes_always_to_the_same(endpoint: str) -> None:
    one = router(lane("b", priority=1), lane("a"), lane("c"), m=["n"])
    for _ in range(20):
        assert names(one.groups(request(None, endpoint=endpoint))) == [(["a"], None, False)]


def test_one_model_is_asked_where_it_is() -> None:
    one = router(lane("a", models=["x"]), lane("b", models=["y/z"]))
    call = request(None, endpoint="GET /models/y/z")
    call.endpoint = "GET /models/{id...}"
    assert names(one.groups(call)) == [(["b"], "y/z", False)]


@pytest.mark.parametrize(
    ("members", "is_bound"),
    [
        ({"previous_response_id": "resp_1"}, True),
        ({"conversation": {"id": "c"}}, True),
        ({"prompt": {"id": "p"}}, True),
        ({"previous_response_id": None}, False),
        ({"input": 'say "previous_response_id"'}, False),
        ({"metadata": {"conversation": "x"}}, False),
        ({}, False),
    ],
)
def test_what_one_upstream_keeps_is_asked_of_it_only(members: Any, is_bound: bool) -> None:
    one = router(lane("a"), lane("b"), lane("c", priority=1), m=["n"])
    found = names(one.groups(request("m", endpoint=RESPONSES, **members)))
    assert (found == [(["a"], "m", False)]) == is_bound
    assert len(names(one.groups(request("m", **members)))) == 4


def test_the_owners_choice() -> None:
    a1, a2, b = lane("a"), lane("a"), lane("b", models={"m": "x"})
    one = router(a1, a2, b)
    found = one.named(["b", "a"], request("m"))
    assert [group.lanes for group in found] == [(b,), (a1, a2)]
    assert names(one.named(["a"], request(None))) == [(["a", "a"], None, False)]
    with pytest.raises(ConfigurationError, match="'c'"):
        one.named(["a", "c"], request("m"))


def test_of_the_owners_choice_those_are_left_out_whose_path_cannot_hold_the_model() -> None:
    by_model = lane("a", base_url="http://a.test/{model}", models={"my/*": "x"})
    one = router(by_model, lane("b"))
    assert names(one.named(["a", "b"], request("../x"))) == [(["b"], "../x", False)]
    assert names(one.named(["a"], request("my/1"))) == [(["a"], "my/1", False)]
    with pytest.raises(NotFound):
        one.named(["a"], request("../x"))


def test_whether_the_model_matters() -> None:
    assert not router(lane("a"), lane("b")).by_model
    assert router(lane("a"), m=["n"]).by_model
    assert router(lane("a", models=["x"])).by_model
    assert router(lane("a", base_url="http://a.test/{model}")).by_model


def test_who_may_answer_for_a_model() -> None:
    one = router(lane("a"), lane("b", models={"m": "x"}), lane("c", models=["q"]), m=["n"])
    assert one.models_behind("m") == (("m", "m"), ("m", "x"), ("n", "n"))
    assert router(lane("c", models=["q"])).models_behind("m") == ()


@pytest.mark.parametrize(
    "fallback", [{"m": []}, {"m": "n"}, {"m": [""]}, {"": ["n"]}, {"m": [5]}, {5: ["n"]}]
)
def test_a_wrong_fallback_is_refused(fallback: Any) -> None:
    with pytest.raises(ConfigurationError, match="a-third"):
        Router([lane("a")], fallback)


# -- which of those that are as good as each other ------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1000.0, 1e-4, 1e-300])
def test_weights_are_shares(scale: float) -> None:
    lanes = [lane(name, weight=weight * scale) for name, weight in (("a", 1), ("b", 2), ("c", 5))]
    one = Router(lanes, {}, draw=random.Random(7).random)
    firsts = Counter(one.ordered(lanes)[0].name for _ in range(8000))
    for name, share in (("a", 1000), ("b", 2000), ("c", 5000)):
        assert abs(firsts[name] - share) < 200, firsts
    seconds = Counter(tuple(each.name for each in one.ordered(lanes)) for _ in range(8000))
    # After c, which is 5/8 of the firsts, b is twice as often as a.
    assert abs(seconds["c", "b", "a"] - 8000 * 5 / 8 * 2 / 3) < 200


def test_a_draw_of_nothing_is_a_draw() -> None:
    lanes = [lane("a"), lane("b")]
    assert len(Router(lanes, {}, draw=lambda: 0.0).ordered(lanes)) == 2
    assert Router(lanes, {}).ordered(lanes[:1]) == lanes[:1]
    assert Router(lanes, {}).ordered([]) == []


def test_those_with_less_to_do_go_before() -> None:
    a, b, c = lane("a", weight=2), lane("b"), lane("c")
    a.in_flight, b.in_flight, c.in_flight = 3, 1, 2
    one = Router([a, b, c], {})
    for _ in range(50):
        assert one.ordered([a, b, c]) == [b, a, c]
