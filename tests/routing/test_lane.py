"""What an upstream is asked for, and with which lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ai_proxy_mw import ConfigurationError, Request, Response
from ai_proxy_mw._types import RawHeaders
from ai_proxy_mw.routing.lane import Lane
from ai_proxy_mw.stages.relay import Relay, send
from tests.routing.scripted import STREAM, Pieces, answer, case, lane, request, script


@pytest.mark.parametrize(
    ("models", "asked", "own"),
    [
        (None, "any", "any"),
        (["a", "b-*"], "a", "a"),
        (["a", "b-*"], "b-1", "b-1"),
        (["a", "b-*"], "c", None),
        ({"fast": "x-1", "b-*": "y", "b-long-*": "z"}, "fast", "x-1"),
        ({"fast": "x-1", "b-*": "y", "b-long-*": "z"}, "b-1", "y"),
        ({"fast": "x-1", "b-*": "y", "b-long-*": "z"}, "b-long-1", "z"),
        (["*"], "a,b", None),
        ([], "a", None),
        (None, "m" * 257, None),
        (["*"], "m" * 10_000_000, None),
        (None, "\x00\ud800\n", "\x00\ud800\n"),
    ],
)
def test_what_an_upstream_calls_a_model(models: Any, asked: str, own: str | None) -> None:
    provider = lane("a", models=models).provider
    assert provider.own_name(asked) == own
    assert provider.can_be_asked(asked)


@pytest.mark.parametrize(
    ("asked", "own"),
    [("gpt-4.1", "gpt-4.1"), ("a/b", None), ("..", None), ("é", None), ("my/x", "x"), ("", None)],
)
def test_in_a_path_a_model_is_one_segment(asked: str, own: str | None) -> None:
    models = {"my/*": "x", "*": None} if asked == "my/x" else None
    names: Any = {"my/*": "x"} if models else None
    provider = lane("a", base_url="http://a.test/d/{model}", models=names).provider
    assert provider.own_name(asked) == own
    assert provider.can_be_asked(asked) == (own is not None)
    assert provider.path_to(own) == ("/d/{model}" if own is None else f"/d/{own}")


def test_a_path_without_a_model_or_with_a_long_one_leads_nowhere() -> None:
    provider = lane("a", base_url="http://a.test/d/{model}").provider
    assert not provider.can_be_asked(None)
    assert not provider.can_be_asked("m" * 257)
    assert lane("a").provider.can_be_asked(None)


def test_an_upstream_serves_what_it_is_said_to() -> None:
    provider = lane("a", endpoints={"POST /embeddings"}).provider
    assert provider.serves("POST /embeddings")
    assert not provider.serves("POST /chat/completions")
    assert lane("a").provider.serves("POST /chat/completions")


def test_no_repr_shows_a_key() -> None:
    assert repr(lane("a", key="sk-secret")) == "Lane(a)"


# -- how it is sent --------------------------------------------------------------------------------


async def sent(one: Lane, call: Request | None = None) -> tuple[bytes, dict[bytes, list[bytes]]]:
    await send(call or request(), one)
    outbound = script(one).sent[-1]
    lines: dict[bytes, list[bytes]] = {}
    for name, value in outbound.headers:
        lines.setdefault(name, []).append(value)
    return outbound.target, lines


@pytest.mark.parametrize(
    ("auth", "line"),
    [
        ("bearer", (b"authorization", b"Bearer key")),
        ("x-api-key", (b"x-api-key", b"key")),
        ("api-key", (b"api-key", b"key")),
    ],
)
def test_how_a_key_is_sent(auth: Any, line: tuple[bytes, bytes]) -> None:
    @case
    async def work() -> None:
        one = lane("a", auth=auth, api_key="key", key="key")
        assert line in script_headers(one, await sent(one))
        assert await one.credentials() == []

    work()


def script_headers(one: Lane, found: object) -> RawHeaders:
    assert found
    return script(one).sent[-1].headers


@case
async def test_a_function_says_who_asks_and_callers_say_nothing_against_it() -> None:
    async def later(key: str | None) -> Mapping[str, str]:
        return {"Openai-Beta": f"signed {key}"}

    def now(key: str | None) -> Mapping[str, str]:
        return {"openai-beta": f"signed {key}"}

    for auth in (later, now):
        one = lane("a", auth=auth, api_key="k", key="k")
        _, lines = await sent(one, request(headers=[(b"openai-beta", b"mine")]))
        assert lines[b"openai-beta"] == [b"signed k"]
        assert b"authorization" not in lines


@pytest.mark.parametrize("lines", [{"a b": "c"}, {"a": "b\r\nc: d"}])
def test_what_a_function_gives_must_be_header_lines(lines: dict[str, str]) -> None:
    @case
    async def work() -> None:
        one = lane("a", auth=lambda key: lines)
        with pytest.raises(ConfigurationError, match="auth"):
            await sent(one)
        assert script(one).sent == []

    work()


@pytest.mark.parametrize(
    ("own", "query", "target"),
    [
        ({}, b"", b""),
        ({}, b"a=1", b"?a=1"),
        ({"v": "1"}, b"", b"?v=1"),
        ({"v": "1"}, b"v=2&a=1", b"?v=1&a=1"),
        ({"v": "1"}, b"%76=2&a=1&&v&V=3", b"?v=1&a=1"),
        ({"v": "1", "w": "2"}, b"x=v", b"?v=1&w=2&x=v"),
        ({"a": "1"}, b"%ff=2&+=3", b"?a=1&%ff=2&+=3"),
    ],
)
def test_the_owners_query_is_not_the_callers_to_say(
    own: dict[str, str], query: bytes, target: bytes
) -> None:
    @case
    async def work() -> None:
        one = lane("a", query=own)
        found, _ = await sent(one, request(query=query))
        assert found == b"/v1/chat/completions" + target

    work()


@case
async def test_one_way_is_a_relay() -> None:
    one = lane("a", answer(200, b"data: 1\n\n", STREAM))
    response: Response = await Relay(one)(request())
    assert response.event_stream
    assert (b"x-accel-buffering", b"no") in response.headers


@pytest.mark.parametrize(("status", "left"), [(204, 0), (304, 0), (200, 1)])
def test_a_length_of_what_was_not_sent_is_left_out(status: int, left: int) -> None:
    @case
    async def work() -> None:
        headers = [(b"content-length", b"7")]
        one = lane("a", answer(status, Pieces(), headers))
        response = await Relay(one)(request())
        assert sum(name == b"content-length" for name, _ in response.headers) == left

    work()


@case
async def test_a_body_that_says_another_model_has_no_coding() -> None:
    one = lane("a")
    call = request(headers=[(b"content-encoding", b"gzip")])
    _, lines = await sent(one, call)
    assert b"content-encoding" in lines
    assert call.call is not None
    call.call = call.call.replace(model="other")
    _, lines = await sent(one, call)
    assert b"content-encoding" not in lines
    assert b'"other"' in bytes(script(one).sent[-1].body)  # type: ignore[arg-type]
