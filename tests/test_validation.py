"""What is judged before it goes upstream, over a real socket, through both doors."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import brotli
import httpx
import pytest
import zstandard
from openai import BadRequestError, OpenAI

from ai_proxy_mw import (
    AIProxy,
    Call,
    Caps,
    ConfigurationError,
    Identity,
    Images,
    Models,
    Refused,
    Request,
    Upstream,
)
from ai_proxy_mw._hooks import hook
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream
from tests.conftest import IN_PROCESS
from tests.servers import serve_asgi

JSON = {"content-type": "application/json"}
PDF = "application/pdf"


def png(width: int = 1, height: int = 1) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0\0")
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def question(**more: Any) -> dict[str, Any]:
    return {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}], **more}


def looking(*urls: str, **more: Any) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [{"type": "text", "text": "What is it?"}, *parts]
    return question(messages=[{"role": "user", "content": content}], **more)


@dataclass
class Served:
    v1: str
    fake: FakeUpstream
    client: httpx.Client

    def chat(self, body: dict[str, Any] | bytes, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post("/chat/completions", content=content, headers={**JSON, **named})

    def refused(self, body: dict[str, Any] | bytes, **headers: str) -> tuple[str | None, str]:
        """The param and code of the error; nothing went upstream."""
        answer = self.chat(body, **headers)
        assert answer.status_code == 400, answer.text
        assert self.fake.requests == []
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["message"]
        return error["param"], error["code"]

    def sent(self, body: dict[str, Any] | bytes) -> dict[str, Any]:
        """What the upstream received."""
        answer = self.chat(body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = json.loads(self.fake.requests[-1].body)
        return found


Serve = Callable[..., AbstractContextManager[Served]]


@pytest.fixture(params=IN_PROCESS)
def serve(request: pytest.FixtureRequest) -> Serve:
    """Serves a proxy, behind each of the doors in turn."""

    @contextmanager
    def begin(**options: Any) -> Iterator[Served]:
        fake = FakeUpstream()
        upstream = Upstream(base_url=FAKE_BASE_URL, transport=fake.transport())
        proxy = AIProxy(upstream=upstream, **({"anonymous": True} | options))
        with (
            IN_PROCESS[request.param](proxy) as url,
            httpx.Client(base_url=f"{url}/v1", timeout=10) as client,
        ):
            yield Served(f"{url}/v1", fake, client)

    return begin


# -- schemas -----------------------------------------------------------------------------------


def test_the_official_client_is_told_which_field_is_wrong(serve: Serve) -> None:
    with serve() as served, OpenAI(base_url=served.v1, api_key="x", max_retries=0) as client:
        with pytest.raises(BadRequestError) as caught:
            client.chat.completions.create(
                model="fake-1",
                messages=[
                    {"role": "user", "content": "Hi"},
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "ftp://x/y"}}],
                    },
                ],
            )
        assert caught.value.param == "messages[1].content[0].image_url.url"
        assert caught.value.code == "invalid_image_url"
        assert served.fake.requests == []


def test_several_mistakes_are_told_one_by_one_in_their_order(serve: Serve) -> None:
    bad_picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    body = question(messages=[{"role": "user", "content": [bad_picture]}], temperature=3, n="x")
    with serve() as served:
        param = "messages[0].content[0].image_url.url"
        assert served.refused(body) == (param, "invalid_base64")
        body["messages"] = [{"role": "user", "content": "Hi"}]
        assert served.refused(body) == ("temperature", "decimal_above_max_value")
        del body["temperature"]
        assert served.refused(body) == ("n", "invalid_type")


def test_what_is_new_passes_byte_for_byte_unless_strict(serve: Serve) -> None:
    body = json.dumps(
        question(
            messages=[{"role": "user", "content": [{"type": "hologram", "hologram": {"x": 1.50}}]}],
            brand_new={"a": [1.10]},
        ),
        indent=1,
    ).encode()
    with serve() as served:
        assert served.chat(body).status_code == 200
        assert served.fake.requests[-1].body == body
    with serve(strict=True) as served:
        assert served.refused(body) == ("messages[0].content[0].type", "invalid_value")
        assert served.refused(question(brand_new=1)) == ("brand_new", "unknown_parameter")
        assert served.chat(question(temperature=1)).status_code == 200


def test_without_validation_everything_passes(serve: Serve) -> None:
    with serve(validate=False) as served:
        served.chat(b'{"model": "fake-1"}', content_type="text/plain")
        assert served.fake.requests[-1].body == b'{"model": "fake-1"}'


# -- bodies ------------------------------------------------------------------------------------

DEEP = b'{"model":"fake-1","messages":[{"role":"user","content":"Hi"}],"x":'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (None, "invalid_json")),
        (b"[]", (None, "invalid_json")),
        (b"\xef\xbb\xbf{}", (None, "invalid_json")),
        (b'{"model":"fake-1"', (None, "invalid_json")),
        (b'{"model":"fake-1"} x', (None, "invalid_json")),
        (b'{"model":NaN}', (None, "invalid_json")),
        (DEEP + b"Infinity}", (None, "invalid_json")),
        (DEEP + b'"\xff"}', (None, "invalid_json")),
        (DEEP + b'"\xed\xa0\x80"}', (None, "invalid_json")),
        (b'{"model":"\\ud800","messages":[{"role":"user","content":""}]}', (None, "invalid_json")),
        (DEEP + b"[" * 100_000 + b"]" * 100_000 + b"}", (None, "invalid_json")),
        (DEEP + b'1,"model":"fake-2"}', (None, "duplicate_parameter")),
        (DEEP + b'1,"messages":[]}', (None, "duplicate_parameter")),
        (b'{"Model":"a",' + DEEP[1:] + b"1}", ("model", "duplicate_parameter")),
        (DEEP[:-4] + b'"n":1e400}', (None, "invalid_json")),
        (DEEP[:-4] + b'"n":' + b"9" * 5000 + b"}", (None, "invalid_json")),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(
    serve: Serve, body: bytes, expected: tuple[str | None, str]
) -> None:
    with serve() as served:
        assert served.refused(body) == expected


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"],
)
def test_a_body_of_another_type_is_415(serve: Serve, content_type: str) -> None:
    with serve() as served:
        headers = {"content-type": content_type} if content_type else {}
        content = json.dumps(question()).encode()
        answer = served.client.post("/chat/completions", content=content, headers=headers)
        assert answer.status_code == 415
        assert answer.json()["error"]["code"] == "unsupported_media_type"
        assert served.fake.requests == []


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("coding", PACKERS)
def test_packed_bodies_are_judged_unpacked_and_sent_as_they_came(serve: Serve, coding: str) -> None:
    pack = PACKERS[coding]
    good, bad = (pack(json.dumps(body).encode()) for body in (question(), question(n=0)))
    with serve(max_body=100_000) as served:
        assert served.refused(bad, content_encoding=coding) == ("n", "integer_below_min_value")
        for broken in (good[:-2], good + b"x", b"x" + good):
            code = "invalid_content_encoding"
            assert served.refused(broken, content_encoding=coding) == (None, code)
        bomb = served.chat(pack(b" " * 100_001), content_encoding=coding)
        assert bomb.status_code == 413
        served.chat(good, content_encoding=coding)
        (seen,) = served.fake.requests
        assert seen.body == good


def test_packed_bodies_that_are_changed_go_out_unpacked(serve: Serve) -> None:
    body = gzip.compress(json.dumps(question(model="fast")).encode())
    with serve(models=Models(aliases={"fast": "fake-1"})) as served:
        assert served.chat(body, content_encoding="gzip").status_code == 200
        (seen,) = served.fake.requests
        assert json.loads(seen.body) == question()


def test_a_coding_that_is_not_known_is_415(serve: Serve) -> None:
    with serve() as served:
        for coding in ("compress", "gzip, gzip", "x"):
            answer = served.chat(question(), content_encoding=coding)
            assert answer.status_code == 415
            assert answer.json()["error"]["code"] == "unsupported_content_encoding"


# -- pictures ----------------------------------------------------------------------------------


def test_pictures_are_judged_by_their_bytes(serve: Serve) -> None:
    param = "messages[0].content[1].image_url.url"
    with serve() as served:
        assert served.sent(looking(data_url(png())))["messages"][0]["content"][1]
        served.fake.reset()
        bomb = looking(data_url(png(60_000, 60_000)))
        assert served.refused(bomb) == (param, "image_dimensions_too_large")
        lie = looking(data_url(png(), "jpeg"))
        assert served.refused(lie) == (param, "image_format_mismatch")
        svg = looking(data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg+xml"))
        assert served.refused(svg) == (param, "unsupported_image_format")


def test_a_picture_that_is_there_twice_for_some_decoders_is_refused(serve: Serve) -> None:
    body = json.dumps(looking(data_url(png()))).replace(
        '"url": ', '"url": "http://10.0.0.1/x","url": '
    )
    with serve() as served:
        assert served.refused(body.encode()) == (None, "duplicate_parameter")


def test_pictures_by_address_may_be_refused(serve: Serve) -> None:
    with serve(images=Images(urls="refuse")) as served:
        param = "messages[0].content[1].image_url.url"
        assert served.refused(looking("https://x.example/a.png")) == (param, "image_url_refused")


# -- models and caps ---------------------------------------------------------------------------


def test_models_have_names_of_the_apps_own(serve: Serve) -> None:
    models = Models(["fake-*"], aliases={"fast": "fake-1"})
    body = b'{ "model" : "fast", "messages": [{"role":"user","content":"Hi"}], "x": 1.50 }'
    with serve(models=models) as served:
        assert served.chat(body).status_code == 200
        (seen,) = served.fake.requests
        assert json.loads(seen.body) == {**json.loads(body), "model": "fake-1"}
        assert b"1.50" in seen.body
        served.fake.reset()
        assert served.chat(question(model="gpt-4.1")).status_code == 403
        assert served.fake.requests == []


def test_a_caller_may_be_held_to_an_alias_or_to_what_it_stands_for(serve: Serve) -> None:
    def identify(request: Request) -> Identity:
        return Identity("alice", models=(request.headers.get("x-models") or "").split(","))

    with serve(anonymous=False, identify=identify, models=Models(aliases={"f": "fake-1"})) as own:
        assert own.chat(question(model="f"), x_models="f").status_code == 200
        assert own.chat(question(model="f"), x_models="fake-*").status_code == 200
        assert own.chat(question(model="fake-1"), x_models="f").status_code == 403


def test_what_a_model_cannot_do_is_said_with_those_that_can(serve: Serve) -> None:
    models = Models(
        ["fake-blind", "fake-seeing"],
        capabilities={"fake-blind": ["tools"], "fake-seeing": ["vision"]},
    )
    tools = [{"type": "function", "function": {"name": "f"}}]
    with serve(models=models) as served:
        answer = served.chat(looking(data_url(png()), model="fake-blind"))
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == (
            "model_without_vision",
            "messages[0].content[1].image_url.url",
        )
        assert "fake-seeing" in error["message"]
        assert "gpt-4.1" not in error["message"]  # callers may not use it here
        seeing = question(model="fake-seeing", tools=tools)
        assert served.refused(seeing) == ("tools", "model_without_tools")
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
        blind = question(model="fake-blind", response_format=form)
        assert served.refused(blind) == ("response_format", "model_without_json_schema")
        assert served.chat(question(model="fake-blind", tools=tools)).status_code == 200


@pytest.mark.parametrize(
    "more",
    [
        {"models": ["dear"]},
        {"fallbacks": [{"model": "dear"}]},
        {"tools": [{"type": "image_generation", "model": "dear"}]},
    ],
)
def test_an_alias_is_not_what_another_model_is_called(serve: Serve, more: dict[str, Any]) -> None:
    """Upstream, that name would be of the model that it stands before here."""
    with serve(models=Models(aliases={"dear": "fake-1"})) as served:
        assert served.refused(question(**more))[1] == "alias_beside_model"
        assert served.chat(question(model="dear", models=["fake-1"])).status_code == 200


@pytest.mark.parametrize(
    "more",
    [
        b'"svg":{"model":"dear"}',
        b'"svg":{"model":"dear","model":null}',
        b'"svg":{"m\\u006fdel":"dear"}',
        b'"fallbacks":[{"model":"dear"}]',
        b'"tools":[{"type":"image_generation","model":"dear","model":"fake-1"}]',
    ],
)
def test_no_other_model_runs_beside_an_allowed_one(serve: Serve, more: bytes) -> None:
    body = b'{"model":"fake-1","prompt":"a cat",%b}' % more
    with serve(models=["fake-*"]) as served:
        answer = served.client.post("/images/generations", content=body, headers=JSON)
        assert answer.status_code in (400, 403)
        assert served.fake.requests == []
        body = b'{"model":"fake-1","prompt":"a cat","svg":{"model":"fake-2"}}'
        answer = served.client.post("/images/generations", content=body, headers=JSON)
        assert answer.status_code == 200


def test_official_clients_may_send_their_queries_where_models_are_held(serve: Serve) -> None:
    with serve(models=["fake-*"]) as served:
        for query in ("beta=true", "api-version=2026-01-01-preview&beta=true"):
            assert served.client.post(f"/chat/completions?{query}", json=question()).is_success
        for query in ("model=x", "beta=true&model=x", "beta=truemodel=x", "beta=true;model=x"):
            answer = served.client.post(f"/chat/completions?{query}", json=question())
            assert answer.status_code == 400


def test_a_model_of_any_length_is_not_repeated(serve: Serve) -> None:
    with serve(models=["fake-*"]) as served:
        assert len(served.chat(question(model="\n" * 100_000)).content) < 2000


def test_a_file_asks_nothing_of_a_model(serve: Serve) -> None:
    pdf = b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"
    part = {"type": "file", "file": {"file_data": data_url(pdf).replace("image/png", PDF)}}
    models = Models(capabilities={"fake-1": []})
    with serve(models=models) as served:
        body = question(messages=[{"role": "user", "content": [part]}])
        assert served.chat(body).status_code == 200


def test_caps_shorten_or_refuse(serve: Serve) -> None:
    with serve(caps=Caps(max_output_tokens=50)) as served:
        assert served.sent(question())["max_completion_tokens"] == 50
        assert served.sent(question(max_tokens=40)) == question(max_tokens=40)
        assert served.sent(question(max_tokens=60)) == question(max_tokens=50)
        both = served.sent(question(max_tokens=60, max_completion_tokens=70))
        assert (both["max_tokens"], both["max_completion_tokens"]) == (50, 50)
    with serve(caps=Caps(max_output_tokens=50, on_excess="refuse")) as served:
        assert served.refused(question(max_tokens=51)) == ("max_tokens", "integer_above_max_value")
        assert served.sent(question(max_tokens=50)) == question(max_tokens=50)


def test_caps_of_answers_messages_and_tools(serve: Serve) -> None:
    with serve(caps=Caps(max_n=2, max_messages=3, tools=False)) as served:
        assert served.refused(question(n=3)) == ("n", "integer_above_max_value")
        four = question(messages=[{"role": "user", "content": "Hi"}] * 4)
        assert served.refused(four) == ("messages", "array_above_max_length")
        tools = [{"type": "function", "function": {"name": "f"}}]
        assert served.refused(question(tools=tools)) == ("tools", "no_tools_here")
        for name, value in (("mcp_servers", [{"name": "x"}]), ("web_search_options", {})):
            assert served.refused(question(**{name: value})) == (name, "no_tools_here")
        assert served.chat(question(n=2, tools=None)).status_code == 200


def test_the_best_of_many_is_as_many(serve: Serve) -> None:
    body = {"model": "fake-1", "prompt": "Hi", "best_of": 3}
    with serve(caps=Caps(max_n=2)) as served:
        answer = served.client.post("/completions", json=body)
        assert answer.json()["error"]["param"] == "best_of"


def test_texts_to_embed_are_no_conversation(serve: Serve) -> None:
    with serve(caps=Caps(max_messages=2)) as served:
        body = {"model": "fake-1", "input": ["one", "two", "three"]}
        assert served.client.post("/embeddings", json=body).status_code == 200
        answer = served.client.post(
            "/responses", json={**body, "input": [{"role": "user", "content": "Hi"}] * 3}
        )
        assert answer.json()["error"]["param"] == "input"


@pytest.mark.parametrize("value", [1e9, "1000"])
def test_caps_hold_without_validation(serve: Serve, value: Any) -> None:
    with serve(caps=Caps(max_output_tokens=50, max_n=2), validate=False) as served:
        for name in ("max_tokens", "n"):
            assert served.refused(question(**{name: value})) == (name, "invalid_type")


# -- checks ------------------------------------------------------------------------------------


def test_checks_refuse_rewrite_and_let_pass(serve: Serve) -> None:
    seen: list[str] = []

    def no_secrets(call: Call) -> None:
        seen.append("sync")
        if "secret" in str(call.get("messages")):
            raise Refused("Leave the secret out.", param="messages", code="secret_found")

    async def system_prompt(call: Call) -> Call:
        seen.append("async")
        messages = [{"role": "system", "content": "Be kind."}, *call.get("messages")]
        return call.replace(messages=messages)

    def bill(call: Call) -> Call:
        assert call.get("messages")[0]["role"] == "system"
        return call.replace(user="shop")

    body = b'{"model": "fake-1", "x": 1.50, "messages": [{"role": "user", "content": "Hi"}]}'
    with serve(checks=[no_secrets, system_prompt, bill]) as served:
        assert served.chat(body).status_code == 200
        assert seen == ["sync", "async"]
        (got,) = served.fake.requests
        assert json.loads(got.body) == {
            "model": "fake-1",
            "x": 1.5,
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Hi"},
            ],
            "user": "shop",
        }
        assert b"1.50" in got.body
        served.fake.reset()
        secret = question(messages=[{"role": "user", "content": "a secret"}])
        assert served.refused(secret) == ("messages", "secret_found")
        # Whoever reads the first of two would have read another one than the check did.
        twice = b'{"model":"fake-1","messages":[{"role":"user","content":"secret","content":"x"}]}'
        assert served.refused(twice) == (None, "duplicate_parameter")


def test_without_validation_checks_see_all_there_is(serve: Serve) -> None:
    twice = b'{"model":"fake-1","messages":[{"role":"user","content":"secret","content":"x"}]}'
    with serve(checks=[lambda call: None], validate=False) as served:
        assert served.refused(twice) == (None, "duplicate_parameter")


def test_a_check_that_is_cancelled_is_a_500(serve: Serve) -> None:
    async def check(call: Call) -> None:
        raise asyncio.CancelledError

    with serve(checks=[check]) as served:
        answer = served.chat(question())
        assert answer.status_code == 500
        assert served.fake.requests == []


def test_a_check_that_only_looks_leaves_the_bytes_alone(serve: Serve) -> None:
    body = b'{ "model":"fake-1","messages":[{"role":"user","content":"\\u0048i"}] }'
    with serve(checks=[lambda call: None]) as served:
        assert served.chat(body).status_code == 200
        assert served.fake.requests[-1].body == body


def test_what_a_check_makes_is_judged_again(serve: Serve) -> None:
    with serve(checks=[lambda call: call.replace(temperature=9)]) as served:
        assert served.refused(question()) == ("temperature", "decimal_above_max_value")


@pytest.mark.parametrize("result", [{"model": "x"}, True, "text"])
def test_a_check_that_fails_or_returns_another_thing_is_500(serve: Serve, result: Any) -> None:
    def check(call: Call) -> Any:
        if result is True:
            raise OSError("database password")
        return result

    with serve(checks=[check]) as served:
        answer = served.chat(question())
        assert answer.status_code == 500
        assert "password" not in answer.text
        assert served.fake.requests == []


def test_checks_and_fetching_leave_other_endpoints_alone(serve: Serve) -> None:
    seen: list[str] = []
    with serve(
        checks=[lambda call: seen.append(call.endpoint)], images=Images(urls="inline")
    ) as it:
        assert it.client.get("/models").status_code == 200
        assert it.chat(question()).status_code == 200
        assert it.chat(looking(data_url(png()))).status_code == 200
    assert seen == ["POST /chat/completions"] * 2


def test_a_check_that_is_cancelled_with_its_call_says_nothing_else() -> None:
    async def waits(call: object) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        asking: Any = hook(waits, "checks=")(cast("Request", None), "call")
        task = asyncio.ensure_future(asking)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


# -- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"checks": lambda call: None},
        {"checks": [1]},
        {"models": "gpt-4.1"},
        {"models": [1]},
        {"validate": 1},
        {"strict": "yes"},
        {"images": "inline"},
        {"audio": 1},
        {"files": 1},
        {"caps": {"n": 1}},
    ],
)
def test_wrong_arguments_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AIProxy(upstream="http://u.example/v1", anonymous=True, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"allow": "gpt"},
        {"aliases": {"a": 1}},
        {"aliases": {"a": "b", "b": "c"}},
        {"aliases": {"a b": "c"}},
        {"capabilities": {"a": "vision"}},
        {"capabilities": {"a": ["flying"]}},
    ],
)
def test_models_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Models(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"max_output_tokens": 0},
        {"max_n": True},
        {"max_messages": "3"},
        {"on_excess": "cut"},
        {"tools": None},
    ],
)
def test_caps_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Caps(**options)


# -- pictures that are fetched -------------------------------------------------------------------

NEAR: Any = {"allow_http": True, "allow_hosts": ["127.0.0.1"], "networks": ["127.0.0.0/8"]}


@contextmanager
def pictures(*shown: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server of pictures, `/0`, `/1`..., and what it was asked for."""
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        headers = [(b"content-type", b"image/png")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": shown[int(scope["path"][1:])]})

    with serve_asgi(app, lifespan="off") as url:
        yield url, asked


def test_pictures_are_put_into_the_call(serve: Serve) -> None:
    first, second = png(2, 2), png(3, 3)
    with pictures(first, second) as (url, asked), serve(images=Images(urls="inline", **NEAR)) as it:
        sent = it.sent(looking(f"{url}/0", data_url(png()), f"{url}/1", f"{url}/0", x=1.5))
        urls = [part["image_url"]["url"] for part in sent["messages"][0]["content"][1:]]
        assert urls == [data_url(each) for each in (first, png(), second, first)]
        assert sent["x"] == 1.5
        assert sorted(asked) == ["/0", "/1"]


def test_pictures_are_put_into_messages_and_responses(serve: Serve) -> None:
    with pictures(png()) as (url, _), serve(images=Images(urls="inline", **NEAR)) as served:
        source = {"type": "url", "url": f"{url}/0"}
        block = {"type": "image", "source": source}
        asked = {"max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}
        served.client.post("/messages", json={"model": "fake-1", **asked})
        sent = json.loads(served.fake.requests[-1].body)
        assert sent["messages"][0]["content"][0]["source"] == {
            "type": "base64",
            "media_type": "image/png",
            "data": base64.b64encode(png()).decode(),
        }
        part = {"type": "input_image", "image_url": f"{url}/0"}
        items = [{"role": "user", "content": [part]}]
        served.client.post("/responses", json={"model": "fake-1", "input": items})
        sent = json.loads(served.fake.requests[-1].body)
        assert sent["input"][0]["content"][0]["image_url"] == data_url(png())


def test_what_cannot_be_fetched_is_told_with_its_place(serve: Serve) -> None:
    with pictures(png(), b"Not found", png(60_000, 60_000)) as (url, asked):
        with serve(images=Images(urls="inline", **NEAR)) as served:
            param = "messages[0].content[2].image_url.url"
            for path, code in (
                ("/1", "unsupported_image_format"),
                ("/2", "image_dimensions_too_large"),
            ):
                body = looking(f"{url}/0", f"{url}{path}")
                assert served.refused(body) == (param, code)
        with serve(images=Images(urls="inline", allow_http=True)) as served:
            asked.clear()
            inside = looking(f"{url}/0")
            param = "messages[0].content[1].image_url.url"
            assert served.refused(inside) == (param, "image_url_forbidden")
            assert asked == []
        small = Images(urls="inline", max_total_bytes=100, **NEAR)
        with serve(images=small) as served:
            assert served.refused(looking(data_url(png()), f"{url}/0"))[1] == "image_too_large"
            # It would be fetched once and sent twice.
            assert served.refused(looking(f"{url}/0", f"{url}/0"))[1] == "image_too_large"
            assert served.chat(looking(f"{url}/0")).status_code == 200


@pytest.mark.parametrize("name", ["a.b", "a.image_url", "[0]", "x" * 100])
def test_a_variable_of_any_name_may_hold_a_picture(serve: Serve, name: str) -> None:
    with pictures(png()) as (url, _), serve(images=Images(urls="inline", **NEAR)) as served:
        part = {"type": "input_image", "image_url": f"{url}/0"}
        other = {"type": "new", "b": part}
        prompt = {"id": "pmpt_1", "variables": {"a": other, name: part}}
        answer = served.client.post("/responses", json={"model": "fake-1", "prompt": prompt})
        assert answer.json()["error"]["code"] == "invalid_value"
        assert served.fake.requests == []
        prompt = {"id": "pmpt_1", "variables": {"a": part}}
        answer = served.client.post("/responses", json={"model": "fake-1", "prompt": prompt})
        sent = json.loads(served.fake.requests[-1].body)
        assert sent["prompt"]["variables"]["a"]["image_url"] == data_url(png())


# -- uploads -------------------------------------------------------------------------------------

WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\0\0\0"


def transcribe(
    served: Served, model: str | None, more: Any = None, **headers: str
) -> tuple[int, str | None]:
    data: dict[str, Any] = {**({} if model is None else {"model": model}), **(more or {})}
    answer = served.client.post(
        "/audio/transcriptions", data=data, files={"file": ("a.wav", WAV)}, headers=headers
    )
    error = answer.json().get("error", {})
    return answer.status_code, error.get("code")


def test_uploads_are_held_to_the_cap_of_answers(serve: Serve) -> None:
    def vary(served: Served, n: str) -> httpx.Response:
        files = {"image": ("a.png", png())}
        return served.client.post("/images/variations", data={"n": n}, files=files)

    with serve(caps=Caps(max_n=2)) as served:
        assert vary(served, "2").status_code == 200
        error = vary(served, "3").json()["error"]
        assert (error["param"], error["code"]) == ("n", "integer_above_max_value")


def test_uploads_are_held_to_the_models_of_the_caller(serve: Serve) -> None:
    def identify(request: Request) -> Identity:
        models = request.headers.get("x-models")
        return Identity("alice", models=None if models is None else models.split(","))

    models = Models(["fake-*"], aliases={"ears": "fake-1"})
    with serve(anonymous=False, identify=identify, models=models) as served:
        assert transcribe(served, "fake-1") == (200, None)
        assert transcribe(served, "fake-1", **{"x-models": "fake-1"}) == (200, None)
        served.fake.reset()
        assert transcribe(served, "fake-2", **{"x-models": "fake-1"}) == (403, "model_not_allowed")
        assert transcribe(served, "other") == (403, "model_not_allowed")
        assert transcribe(served, "ears") == (400, "alias_in_upload")
        assert transcribe(served, None) == (400, "missing_required_parameter")
        for name in ("fallbacks", "models[]"):
            more = {name: "fake-2"}
            assert transcribe(served, "fake-1", more) == (403, "model_not_allowed")
        assert not any(seen.arrived for seen in served.fake.requests)


def test_who_is_free_may_name_further_models_in_an_upload(serve: Serve) -> None:
    with serve() as served:
        assert transcribe(served, "fake-1", {"fallbacks": '["fake-2"]'}) == (200, None)


def test_an_edit_without_a_model_is_not_for_who_is_held_to_some(serve: Serve) -> None:
    files = {"image": ("a.png", png())}
    for models, status in ((None, 200), (["fake-*"], 403)):
        with serve(models=models) as served:
            data = {"prompt": "A hat"}
            answer = served.client.post("/images/edits", data=data, files=files)
            assert answer.status_code == status, answer.text
            other = served.client.post("/images/edits", json={"prompt": "A hat", "images": []})
            assert other.status_code in ((403,) if models else (200, 400)), other.text
            sent_as_json = [seen for seen in served.fake.requests if b"images" in seen.body[:40]]
            assert len(sent_as_json) == (0 if models else 1)


def test_an_upload_that_is_no_form_is_415(serve: Serve) -> None:
    with serve() as served:
        answer = served.client.post("/audio/transcriptions", json={"model": "fake-1"})
        assert answer.status_code == 415
        plain = served.client.post(
            "/files",
            files={"file": ("a.txt", b"x")},
            data={"purpose": "batch"},
            headers={"content-encoding": "identity"},
        )
        assert plain.status_code == 200
        served.fake.reset()
        packed = served.client.post(
            "/files",
            files={"file": ("a.txt", b"x")},
            data={"purpose": "batch"},
            headers={"content-encoding": "gzip"},
        )
        assert packed.json()["error"]["code"] == "unsupported_content_encoding"
        assert served.fake.requests == []
