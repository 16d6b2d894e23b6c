"""Who is calling, as the app's function tells it: what is taken, what is not, and what it says."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw import CORS, AIProxy, ConfigurationError, Forbidden, Identity, Request, Response
from ai_proxy_mw._identity import MAX_SUBJECT, fault
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.stages.cross_site import CrossSiteStage
from ai_proxy_mw.testing import FakeUpstream
from tests.conftest import IN_PROCESS
from tests.reuse.cell import PAGE, Recorder, upstream

CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}


class Told:
    """A proxy whose function returns what the test says."""

    def __init__(self, url: str, fake: FakeUpstream, recorder: Recorder) -> None:
        self.url = url
        self.fake = fake
        self.recorder = recorder
        self.found: Any = None

    def call(self, found: Any, **options: Any) -> httpx.Response:
        self.found = found
        return httpx.post(f"{self.url}/v1/chat/completions", json=CHAT, **options)


@pytest.fixture(scope="module", params=IN_PROCESS)
def _told(request: pytest.FixtureRequest) -> Iterator[Told]:
    fake, recorder = FakeUpstream(), Recorder()
    told = Told("", fake, recorder)

    async def identify(call: Request) -> Any:
        return told.found

    proxy = AIProxy(upstream=upstream(fake), identify=identify)
    with IN_PROCESS[request.param](recorder.watch(proxy)) as url:
        told.url = url
        yield told


@pytest.fixture
def told(_told: Told) -> Told:
    _told.fake.reset()
    _told.recorder.subjects.clear()
    return _told


# -- subjects -----------------------------------------------------------------------------------

UNUSABLE = {
    "empty": "",
    "blank": " \t ",
    "wide blank": "\u3000\xa0",
    "too long": "canary" + "x" * (MAX_SUBJECT - 5),
    "10 kB": "canary" * 1700,
    "NUL": "canary\x00",
    "line feed": "canary\nINFO: forged",
    "carriage return": "canary\rforged",
    "escape": "canary\x1b[31m",
    "delete": "canary\x7f",
    "C1": "canary\x85",
    "line separator": "canary\u2028forged",
    "paragraph separator": "canary\u2029forged",
    "half a pair": "canary\ud83d",
    "the other half": "canary\udc80",
}
USABLE = {
    "one character": "7",
    "the longest": "x" * MAX_SUBJECT,
    "mail": "alice+ai@example.com",
    "an emoji": "🙂",
    "an emoji of several": "👩\u200d👩\u200d👧",
    "CJK": "日本語の利用者",
    "spaces inside": "Alice B.",
    "accents": "zoë",
    "a path": "../../etc/passwd",
    "a format": "%s%n{0}",
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_unusable_subject_is_401_and_not_in_the_log(
    told: Told, name: str, wrapped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    subject = UNUSABLE[name]
    answer = told.call(Identity(subject) if wrapped else subject)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert told.fake.requests == []
    assert list(told.recorder.subjects.values()) == [""]
    [record] = [one for one in caplog.records if one.name == "ai_proxy_mw"]
    message = record.getMessage()
    assert answer.headers["x-request-id"] in message
    assert "the subject cannot be used" in message
    assert "canary" not in message
    assert message.isprintable()


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize("wrapped", [False, True])
def test_any_other_subject_arrives_unchanged(told: Told, name: str, wrapped: bool) -> None:
    subject = USABLE[name]
    answer = told.call(Identity(subject) if wrapped else subject)
    assert answer.status_code == 200, answer.text
    assert list(told.recorder.subjects.values()) == [subject]
    [seen] = told.fake.requests
    if len(subject) > 1:
        assert all(subject.encode() not in value for _, value in seen.headers)


@given(st.text(st.characters(exclude_categories=()), max_size=MAX_SUBJECT + 5))
def test_a_usable_subject_is_one_line_that_can_be_encoded(subject: str) -> None:
    if fault(subject) is None:
        assert subject.strip()
        assert len(subject) <= MAX_SUBJECT
        assert subject.splitlines() == [subject]
        assert subject.encode().decode() == subject
        assert "\x00" not in subject


@pytest.mark.parametrize("found", [7, 0, 1.5, True, False, b"alice", ["alice"], ("a", "b"), {}])
def test_a_subject_of_another_type_is_500(
    told: Told, found: object, caplog: pytest.LogCaptureFixture
) -> None:
    answer = told.call(found)
    assert answer.status_code == 500
    assert told.fake.requests == []
    assert f"a subject is text, not {type(found).__name__}: write str(user.id)" in caplog.text


def test_nobody_is_401_without_a_warning(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    assert told.call(None).status_code == 401
    assert [one for one in caplog.records if one.name == "ai_proxy_mw"] == []


# -- Identity -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"subject": None}, "a subject is text"),
        ({"subject": 7}, "write str"),
        ({"subject": "a", "scope": 7}, "scope"),
        ({"subject": "a", "models": "gpt-5"}, "models"),
        ({"subject": "a", "models": ["gpt-5", 4]}, "models"),
        ({"subject": "a", "models": 7}, "not iterable"),
        ({"subject": "a", "tags": {"team": 7}}, "tags"),
        ({"subject": "a", "tags": {7: "x"}}, "tags"),
        ({"subject": "a", "tags": 7}, "not iterable"),
        ({"subject": "a", "roles": []}, "roles"),
    ],
)
def test_values_of_other_types_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(TypeError, match=re.escape(why)):
        Identity(**wrong)


def test_only_the_subject_is_positional() -> None:
    with pytest.raises(TypeError):
        Identity("a", "scope")  # type: ignore[call-arg]


def test_an_identity_cannot_be_changed() -> None:
    tags, models = {"team": "red"}, ["gpt-5"]
    identity = Identity("alice", scope="acme", tags=tags, models=models)
    tags["team"] = "blue"
    models.append("gpt-6")
    assert (identity.scope, dict(identity.tags)) == ("acme", {"team": "red"})
    assert not identity.may_use("gpt-6")
    with pytest.raises(AttributeError):
        identity.subject = "bob"  # type: ignore[misc]
    with pytest.raises(TypeError):
        identity.tags["team"] = "blue"  # type: ignore[index]
    assert identity == Identity("alice", scope="acme", tags={"team": "red"}, models=("gpt-5",))


@pytest.mark.parametrize(
    ("models", "model", "may"),
    [
        (None, "anything", True),
        ([], "gpt-5", False),
        (["gpt-5"], "gpt-5", True),
        (["gpt-5"], "GPT-5", False),
        (["gpt-5"], "gpt-5-mini", False),
        (["gpt-5"], "gpt-5\n", False),
        (["gpt-5*"], "gpt-5-mini", True),
        (["gpt-5*"], "gpt-5\nx", False),
        (["gpt-5*"], "gpt-5,o1-pro", False),
        (["a,b"], "a,b", True),
        (["gpt-?"], "gpt-5", True),
        (["gpt-[45]"], "gpt-4", True),
        (["gpt-[45]"], "gpt-6", False),
        (["gpt.4"], "gptx4", False),
        (["*"], "", True),
        (["a", "b*"], "bc", True),
    ],
)
def test_models_are_names_or_patterns(models: list[str] | None, model: str, may: bool) -> None:
    assert Identity("alice", models=models).may_use(model) is may
    assert Identity("alice", models=None if models is None else iter(models)).may_use(model) is may


def test_many_stars_are_no_way_to_keep_us_busy() -> None:
    """Tries of the backtracking kind would take longer than the world is old."""
    assert not Identity("alice", models=["a*" * 30 + "b"]).may_use("a" * 5000)


# -- other sites' pages -------------------------------------------------------------------------

EVIL = "https://evil.example"


async def _no_body() -> tuple[bytes, bool]:
    return b"", True


async def _never(function: Any) -> Any:
    raise AssertionError(function)


def _request(lines: list[tuple[bytes, bytes]], method: str = "POST") -> Request:
    return Request(
        method=method,
        path="/chat/completions",
        query=b"",
        headers=lines,
        body=RequestBody(_no_body, declared=None, limit=1),
        client=None,
        request_id="r1",
        run_sync=_never,
    )


def _passes(stage: CrossSiteStage, method: str = "POST", **headers: str) -> bool:
    lines = [(name.replace("_", "-").encode(), v.encode()) for name, v in headers.items()]
    return _passes_with(stage, lines, method)


def _passes_with(
    stage: CrossSiteStage, lines: list[tuple[bytes, bytes]], method: str = "POST"
) -> bool:
    async def handler(request: Request) -> Response:
        return Response(200, [])

    async def main() -> bool:
        try:
            return (await stage(_request(lines, method), handler)).status == 200
        except Forbidden:
            return False

    return asyncio.run(main())


WITH_COOKIES = CORS(allow_origins=[PAGE], allow_credentials=True)


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"sec_fetch_site": "same-origin", "origin": "http://own.example"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "cross-site", "origin": EVIL}, False),
        ({"sec_fetch_site": "same-site", "origin": "https://blog.own.example"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "cross-site", "origin": "null"}, False),
        ({"sec_fetch_site": ""}, False),
        ({"sec_fetch_site": "Same-Origin"}, False),
        ({"sec_fetch_site": "same-origin,cross-site"}, False),
        # Where the browser does not say, the page must be of the host that it calls.
        ({"origin": "http://own.example", "host": "own.example"}, True),
        ({"origin": "http://own.example:8080", "host": "own.example:8080"}, True),
        (
            {"origin": "http://own.example", "host": "app:80", "x_forwarded_host": "own.example"},
            True,
        ),
        ({"origin": "http://own.example", "host": "own.example:8080"}, False),
        ({"origin": EVIL, "host": "own.example"}, False),
        ({"origin": "http://own.example.evil.example", "host": "own.example"}, False),
        ({"origin": "null", "host": "own.example"}, False),
        ({"origin": "null", "host": ""}, False),
        ({"origin": EVIL}, False),
        ({"origin": EVIL, "host": "own.example", "authorization": "Bearer x"}, True),
        (
            {"origin": "https://own.example", "host": "app:80", "sec_fetch_site": "same-origin"},
            True,
        ),
        ({"host": "own.example"}, True),
        ({"sec_fetch_site": "new-value"}, False),
        # A page can send these only after a preflight, which has been allowed then.
        ({"sec_fetch_site": "cross-site", "origin": EVIL, "authorization": "Bearer x"}, True),
        ({"sec_fetch_site": "cross-site", "origin": EVIL, "authorization": "bearer x"}, True),
        ({"sec_fetch_site": "cross-site", "origin": EVIL, "x_api_key": "x"}, True),
        # Browsers send these passwords of their own accord.
        ({"sec_fetch_site": "cross-site", "origin": EVIL, "authorization": "Basic x"}, False),
        ({"sec_fetch_site": "cross-site", "origin": EVIL, "authorization": "Negotiate x"}, False),
        ({"sec_fetch_site": "cross-site", "origin": EVIL, "authorization": "Bearer"}, False),
        ({"sec_fetch_site": "cross-site", "origin": EVIL, "authorization": ""}, False),
    ],
)
def test_pages_of_other_sites_are_refused(headers: dict[str, str], passes: bool) -> None:
    assert _passes(CrossSiteStage(None, []), **headers) is passes
    assert _passes(CrossSiteStage(WITH_COOKIES, ["https://app.example"]), **headers) is passes


def test_the_last_of_several_lines_hides_none_before_it() -> None:
    lines = [(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-site", b"same-origin")]
    for order in (lines, lines[::-1]):
        assert not _passes_with(CrossSiteStage(None, []), order)


def test_what_spends_nothing_may_be_asked_from_anywhere() -> None:
    stage = CrossSiteStage(None, [])
    for method, passes in (("GET", True), ("HEAD", True), ("DELETE", False), ("get", False)):
        assert _passes(stage, method, sec_fetch_site="cross-site", origin=EVIL) is passes


def test_origins_are_trusted_by_cors_with_credentials_or_by_name() -> None:
    def page(stage: CrossSiteStage, origin: str) -> bool:
        return _passes(stage, sec_fetch_site="cross-site", origin=origin)

    assert page(CrossSiteStage(WITH_COOKIES, []), PAGE)
    assert not page(CrossSiteStage(CORS(allow_origins=[PAGE]), []), PAGE)
    assert not page(CrossSiteStage(CORS(allow_origins=["*"]), []), PAGE)
    pattern = CORS(allow_origin_regex=r"https://[a-z]+\.own\.example", allow_credentials=True)
    assert page(CrossSiteStage(pattern, []), "https://blog.own.example")
    assert not page(CrossSiteStage(pattern, []), "https://blog.own.example.evil.example")
    named = CrossSiteStage(None, (origin for origin in ["https://app.example"]))
    assert page(named, "https://app.example")
    for origin in (EVIL, "https://app.example.evil.example", "http://app.example", "null", ""):
        assert not page(named, origin)
    both = CrossSiteStage(WITH_COOKIES, ["https://app.example"])
    assert page(both, PAGE)
    assert page(both, "https://app.example")


@pytest.mark.parametrize(
    "origins",
    ["https://app.example", ["app.example"], ["https://app.example/"], [7], ["HTTPS://A"]],
)
def test_bad_trusted_origins_are_refused_when_the_proxy_is_made(origins: Any) -> None:
    with pytest.raises(ConfigurationError, match="trusted_origins"):
        AIProxy(
            upstream=upstream(FakeUpstream()), identify=lambda call: "a", trusted_origins=origins
        )


def test_another_sites_page_is_refused_before_the_app_is_asked(told: Told) -> None:
    headers = {"sec-fetch-site": "cross-site", "origin": EVIL, "content-type": "text/plain"}
    answer = told.call("alice", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "forbidden"
    assert list(told.recorder.subjects.values()) == [""]
    assert told.fake.requests == []


def test_a_name_with_an_underscore_is_not_there() -> None:
    """Servers that turn `-` into `_` would mix it up with another header."""
    lines = [(b"x_user", b"mallory"), (b"x-user", b"alice"), (b"cookie_", b"a=b")]
    headers = _request(lines).headers
    assert headers.get("x_user") is None
    assert headers.get_all("X-User") == ["alice"]
    assert dict(headers) == {"x-user": "alice"}


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://app.example", {"host": "app.example:80"}, 200),
        ("https://app.example", {"host": "App.Example:443"}, 200),
        ("http://app.example:8080", {"host": "app.example:8080"}, 200),
        ("http://app.example", {"host": "x", "x-forwarded-host": "app.example, inner"}, 200),
        ("http://app.example:8080", {"host": "app.example"}, 403),
        ("http://app.example.evil.example", {"host": "app.example"}, 403),
        ("http://evil.example:80", {"host": "app.example:80"}, 403),
        ("null", {"host": "app.example"}, 403),
    ],
)
def test_the_apps_own_pages_are_known_by_their_host(
    origin: str, host: dict[str, str], status: int
) -> None:
    fake = FakeUpstream()
    proxy = AIProxy(upstream=upstream(fake), identify=lambda request: "alice")
    with IN_PROCESS["uvicorn"](proxy) as url:
        answer = httpx.post(
            f"{url}/v1/chat/completions",
            json={"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]},
            headers={"origin": origin, **host},
        )
    assert answer.status_code == status
    assert (status == 200) == bool(fake.requests)


def test_many_slow_hooks_hold_up_nobody() -> None:
    slow = threading.Event()

    def identify(request: Request) -> str:
        if request.headers.get("x-slow"):
            slow.wait(10)
        return "alice"

    proxy = AIProxy(upstream=upstream(FakeUpstream()), identify=identify)
    with IN_PROCESS["uvicorn"](proxy) as url, ThreadPoolExecutor(40) as pool:
        try:
            waiting = [
                pool.submit(httpx.get, f"{url}/v1/models", headers={"x-slow": "1"}, timeout=20)
                for _ in range(40)
            ]
            assert httpx.get(f"{url}/v1/models", timeout=5).status_code == 200
        finally:
            slow.set()
        assert {done.result().status_code for done in waiting} == {200}
