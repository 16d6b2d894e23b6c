"""What an answer says of limits."""

from __future__ import annotations

import pytest

from ai_proxy_mw import Limit
from ai_proxy_mw.limiting.headers import duration, lines
from ai_proxy_mw.limiting.ledger import Standing


def test_the_tightest_of_each_kind_and_all_of_them() -> None:
    found = dict(
        lines(
            [
                Standing(Limit("10/second"), 9, 0.25),
                Standing(Limit("100/minute"), 5, 61.5),
                Standing(Limit("100/minute", per="ip"), 50, 2),
                Standing(Limit("1000/day", of="output_tokens"), 900, 3600),
                Standing(Limit("1000/day", of="tokens"), 100, 3600),
                Standing(Limit("2.50/day", of="usd"), 1_239_999, 86400),
                Standing(Limit("7", of="concurrent"), 6, 0),
            ]
        )
    )
    assert found[b"x-ratelimit-limit-requests"] == b"100"
    assert found[b"x-ratelimit-remaining-requests"] == b"5"
    assert found[b"x-ratelimit-reset-requests"] == b"1m2s"
    assert found[b"x-ratelimit-limit-tokens"] == b"1000"
    assert found[b"x-ratelimit-remaining-tokens"] == b"100"
    assert found[b"x-ratelimit-reset-tokens"] == b"1h0m0s"
    ids = Limit("100/minute").id, Limit("100/minute", per="ip").id
    assert found[b"ratelimit"].decode().split(", ") == [
        '"requests-1s";r=9;t=1',
        f'"requests-60s-{ids[0]}";r=5;t=62',
        f'"requests-60s-{ids[1]}";r=50;t=2',
        '"output_tokens-86400s";r=900;t=3600',
        '"tokens-86400s";r=100;t=3600',
        '"usd-86400s";r=123;t=86400',
        '"concurrent";r=6',
    ]
    assert found[b"ratelimit-policy"].decode().split(", ")[-2:] == [
        '"usd-86400s";q=250;w=86400',
        '"concurrent";q=7',
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0201, "21ms"), (1, "1s"), (1.25, "1.25s"), (60, "1m0s"), (3661, "1h1m1s")],
)
def test_times_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
