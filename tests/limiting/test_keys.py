"""Whose count is whose."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw import Limit
from ai_proxy_mw.limiting import keys
from ai_proxy_mw.limiting.limiter import Limiter

ANY = st.text(st.characters(exclude_categories=()), max_size=20)
ODD = [
    "", "a", ":", "::", "/", "a/b", "a:b", "1:a", "1:a1:b", "\0", "a\0", "a\0b", "\n", " ", "A",
    "é", "e\u0301", "🦊", "🦊🦊", "\ud83e\udd8a", "\ud83e", "\udd8a", "x" * 10_000, "x" * 10_001,
    "shared", "shared:1", "*", "%00", "unknown",
]  # fmt: skip


def _request(subject: str, model: str | None = None, client: str | None = None) -> Any:
    return SimpleNamespace(subject=subject, client=client, call=SimpleNamespace(model=model))


def test_odd_subjects_never_share_a_count() -> None:
    for per in ("subject", "ip", "model"):
        limit = Limit("1/minute", per=per)
        found = {keys.owner(limit, _request(text, text, text or None)) for text in ODD}
        same = {"", "unknown"} if per == "ip" else set()  # an address is never empty
        assert len(found) == len(ODD) - len(same) // 2


@given(ANY, ANY, ANY, ANY)
def test_pairs_never_share_a_count(a: str, b: str, c: str, d: str) -> None:
    limit = Limit("1/minute", per="subject+model")
    one, other = (keys.owner(limit, _request(*pair)) for pair in ((a, b), (c, d)))
    assert (one == other) == ((a, b) == (c, d))


def test_pairs_that_read_alike() -> None:
    limit = Limit("1/minute", per="subject+model")
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("a:", "b"), ("a", ":b")]
    pairs += [("1:a1", "b"), ("1:a", "1b"), ("a\0", "b"), ("a", "\0b")]
    assert len({keys.owner(limit, _request(*pair)) for pair in pairs}) == len(pairs)


@given(ANY)
def test_keys_are_short_and_of_plain_characters(text: str) -> None:
    limit = Limit("1/minute", per=lambda request: request.subject)
    who = keys.owner(limit, _request(text))
    assert who is not None
    key = Limiter([limit], name=text).base(limit, who)
    assert len(key) <= 60
    assert set(key) <= set("0123456789abcdef:")


def test_a_function_may_say_that_a_limit_is_not_for_a_call() -> None:
    assert keys.owner(Limit("1/minute", per=lambda _: None), _request("a")) is None


def test_apps_and_limits_never_share_a_count_unless_told_to() -> None:
    limits = [
        Limit("5/minute"),
        Limit("5/hour"),
        Limit("5/minute", of="tokens"),
        Limit("5/minute", per="ip"),
        Limit("5/minute", strategy="fixed"),
        Limit("5/minute", models=["a", "b"]),
        Limit("5/minute", models=["ab"]),
        Limit("5/minute", endpoints=["a", "b"]),
        Limit("5/minute", models=["a"], endpoints=["b"]),
        Limit("5/minute", models=["a", "|", "b"]),
    ]
    names = ["shop", "office", "shared", ""]
    apps = [Limiter([], name=name) for name in names]
    assert len({app.base(limit, "w") for app in apps for limit in limits}) == 40
    shared = Limit("5/minute", shared=True)
    assert {app.base(shared, "w") for app in apps} == {f"shared:{shared.id}:w"}
    # Who is given more goes on from where they stand.
    assert Limit("5/minute").id == Limit("500/minute").id
