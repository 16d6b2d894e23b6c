"""What a kept answer has cost is found when it is given again."""

from __future__ import annotations

from msgspec.structs import replace

from ai_proxy_mw import Price, Prices
from ai_proxy_mw.accounting.costs import Costs
from ai_proxy_mw.caching import savings
from ai_proxy_mw.caching.entry import Entry
from ai_proxy_mw.caching.savings import Saving, Savings

ANSWER = b'{"id": "a", "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}'
ENTRY = Entry(
    key="a:k",
    created=1000.0,
    ttl=60.0,
    status=200,
    headers=[(b"content-type", b"application/json")],
    endpoint="POST /chat/completions",
    model="fake-1",
    body=ANSWER,
)
COSTS = Costs(Prices({"fake-1": Price(input=1.0, output=2.0)}), None)


def test_tokens_and_money_as_the_provider_has_counted() -> None:
    assert Savings(COSTS).of(ENTRY) == Saving(7, 5, 17)


def test_what_was_put_aside_of_a_stream_is_read_behind_it() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5}}\n\n'
    word = b'data: {"choices":[{"delta":{"content":"Hi"}}],"usage":null}\n\n'
    stream = [(b"content-type", b"text/event-stream")]
    entry = replace(ENTRY, headers=stream, event_stream=True, body=word)
    assert Savings(COSTS).of(entry) == Saving(0, 1, 2)
    assert Savings(COSTS).of(replace(entry, aside=[usage])) == Saving(7, 5, 17)


def test_what_is_not_known_is_unknown_and_what_is_free_is_nothing() -> None:
    known = Savings(COSTS)
    assert known.of(replace(ENTRY, model="other")) == Saving(7, 5, None)
    assert known.of(replace(ENTRY, key="a:2", model="fake-1" * 99)) == Saving(7, 5, None)
    assert known.of(replace(ENTRY, key="a:3", body=b"")) == Saving(0, 0, None)
    assert known.of(replace(ENTRY, key="a:4", endpoint="GET /models")) == Saving(0, 0, 0)


def test_an_answer_is_read_once_and_few_are_kept_in_mind() -> None:
    known = Savings(COSTS)
    first = known.of(ENTRY)
    assert known.of(replace(ENTRY, body=b"{}")) is first
    assert known.of(replace(ENTRY, body=b"{}", created=1001.0)) != first  # a newer one
    for number in range(savings._MOST + 1):
        known.of(replace(ENTRY, key=f"a:{number}", body=b"{}"))
    assert len(known._known) == savings._MOST
