"""Limits as they are written."""

from __future__ import annotations

from typing import Any

import pytest

from ai_proxy_mw import ConfigurationError, Identity, Limit
from ai_proxy_mw._limits import limits_of


@pytest.mark.parametrize(
    ("rate", "of", "amount", "window"),
    [
        ("100/minute", "requests", 100, 60),
        ("100 per 2 hours", "tokens", 100, 7200),
        (" 5 / 1 DAY ", "requests", 5, 86400),
        ("10/30 seconds", "output_tokens", 10, 30),
        ("2.50/day", "usd", 2_500_000, 86400),
        ("0.000001/month", "usd", 1, 30 * 86400),
        ("10", "concurrent", 10, 0),
    ],
)
def test_a_rate_is_read(rate: str, of: Any, amount: int, window: int) -> None:
    limit = Limit(rate, of=of)
    assert (limit.amount, limit.window) == (amount, window)
    assert str(limit) == f"{rate} ({of} per subject)"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rate": "100"}, "'100/minute'"),
        ({"rate": "0/minute"}, "'100/minute'"),
        ({"rate": "-1/minute"}, "'100/minute'"),
        ({"rate": "1.5/minute"}, "'100/minute'"),
        ({"rate": "1/0 minute"}, "'100/minute'"),
        ({"rate": "1/fortnight"}, "'100/minute'"),
        ({"rate": "1/minute;2/hour"}, "'100/minute'"),
        ({"rate": "9999999999999999/minute"}, "'100/minute'"),
        ({"rate": 100}, "'100/minute'"),
        ({"rate": "10/minute", "of": "concurrent"}, "'10'"),
        ({"rate": "0.0000001/day", "of": "usd"}, "'2.50/day'"),
        ({"rate": "1/day", "of": "euros"}, "of='euros'"),
        ({"rate": "1/day", "strategy": "leaky"}, "strategy='leaky'"),
        ({"rate": "1/day", "strategy": "moving", "of": "tokens"}, "strategy='sliding'"),
        ({"rate": "1/day", "per": "planet"}, "per='planet'"),
        ({"rate": "1/day", "shared": 1}, "shared=1"),
        ({"rate": "1/day", "models": "gpt"}, "list of names"),
        ({"rate": "1/day", "models": []}, "list of names"),
        ({"rate": "1/day", "endpoints": [1]}, "list of names"),
    ],
)
def test_a_wrong_limit_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Limit(**arguments)


def test_several_are_read_together() -> None:
    limit = Limit("5/day", of="usd")
    assert limits_of(["100/minute; 5/second", limit]) == (
        Limit("100/minute"),
        Limit("5/second"),
        limit,
    )
    assert limits_of(["100/minute; 50000 tokens/minute; 5 usd/day; 8 concurrent"]) == (
        Limit("100/minute"),
        Limit("50000/minute", of="tokens"),
        Limit("5/day", of="usd"),
        Limit("8", of="concurrent"),
    )
    assert limits_of(["7 Input_Tokens per 2 hours"]) == (Limit("7 per 2 hours", of="input_tokens"),)
    with pytest.raises(ConfigurationError, match="'apples'"):
        limits_of(["5 apples/day"])
    for wrong in ("100/minute", 5, [5], [None]):
        with pytest.raises(ConfigurationError, match="limits"):
            limits_of(wrong)  # type: ignore[arg-type]


def test_an_identity_brings_limits() -> None:
    identity = Identity("alice", limits=["5/minute"])
    assert identity.limits == (Limit("5/minute"),)
    with pytest.raises(ConfigurationError, match="limits"):
        Identity("alice", limits="5/minute")


def test_what_a_limit_covers() -> None:
    limit = Limit("1/day", models=["gpt-4*"], endpoints=["POST /chat/*"])
    assert limit.covers("POST /chat/completions", "gpt-4.1")
    assert not limit.covers("POST /embeddings", "gpt-4.1")
    assert not limit.covers("POST /chat/completions", "claude")
    assert not limit.covers("POST /chat/completions", None)
    assert Limit("1/day").covers("GET /files", None)
    assert limit.needs_call
    assert Limit("1/day", per="model").needs_call
    assert Limit("1/day", of="tokens").needs_call
    assert not Limit("1/day", per="ip", endpoints=["GET /files"]).needs_call


def test_counts_go_on_when_an_amount_changes_and_are_apart_otherwise() -> None:
    def team(request: object) -> str:
        return "a"

    limit = Limit("100/minute")
    assert limit.id == Limit("200/minute").id
    others = [
        Limit("100/hour"),
        Limit("100/minute", of="tokens"),
        Limit("100/minute", per="ip"),
        Limit("100/minute", per=team),
        Limit("100/minute", strategy="fixed"),
        Limit("100/minute", models=["a"]),
        Limit("100/minute", endpoints=["a"]),
        Limit("100/minute", models=["a", "b"]),
    ]
    assert len({limit.id, *(other.id for other in others)}) == len(others) + 1
