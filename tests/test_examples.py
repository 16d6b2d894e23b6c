"""The examples, started as their READMEs say and used over a socket as a browser uses them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import openai
import pytest

from ai_proxy_mw import hash_api_key
from ai_proxy_mw.testing import FakeUpstream
from tests.servers import ROOT, Process, serve_process

EXAMPLES = ROOT / "examples"
KEY = "sk-upstream-secret"
SECRET = "what-signs-the-session"
CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "good morning"}]}
STREAM = CHAT | {"stream": True}
CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}


def readme_command(example: str, *extra: str) -> Callable[[int], list[str]]:
    """The first command of an example's README that starts the server, on another port."""
    readme = (EXAMPLES / example / "README.md").read_text()
    found = re.search(r"^\.\./\.\./\.venv/bin/(.+)$", readme, re.MULTILINE)
    assert found is not None
    words = [*shlex.split(found[1]), *extra]
    if words[0] == "uvicorn":
        return lambda port: [*words, "--port", str(port)]
    return lambda port: [*words, "--no-control-socket", "-b", f"127.0.0.1:{port}"]


STARTS = {
    "fastapi": ("fastapi_app", readme_command("fastapi_app")),
    "flask-gthread": ("flask_app", readme_command("flask_app")),
    "flask-sync": ("flask_app", readme_command("flask_app", "-k", "sync", "--threads", "1")),
}


@contextmanager
def start(kind: str, **env: str) -> Iterator[Process]:
    folder, command = STARTS[kind]
    cwd = EXAMPLES / folder
    with serve_process(command, {"PYTHONPATH": str(cwd), **env}, cwd=cwd) as process:
        yield process


class Example:
    """A running example, and the upstream behind it if that is on a port."""

    def __init__(self, process: Process, fake: FakeUpstream) -> None:
        self.process = process
        self.fake = fake

    def visitor(self) -> httpx.Client:
        """A browser with no cookies yet."""
        return httpx.Client(base_url=self.process.url, timeout=30, trust_env=False)

    @contextmanager
    def user(self) -> Iterator[httpx.Client]:
        """A browser that has signed in."""
        with self.visitor() as client:
            assert sign_in(client).status_code == 303
            yield client


def sign_in(
    client: httpx.Client, user: str = "alice", password: str = "wonderland"
) -> httpx.Response:
    return client.post("/login", data={"user": user, "password": password})


@pytest.fixture(scope="module", params=STARTS)
def offline(request: pytest.FixtureRequest) -> Iterator[Example]:
    """As it starts without any setting; an empty variable counts as none."""
    with start(request.param, AI_PROXY_UPSTREAM="", APP_SECRET="", APP_MODEL="") as process:
        yield Example(process, FakeUpstream())


@pytest.fixture(scope="module", params=STARTS)
def _online(request: pytest.FixtureRequest) -> Iterator[Example]:
    fake = FakeUpstream()
    with fake.serve() as server:
        env = {
            "AI_PROXY_UPSTREAM": server.base_url,
            "AI_PROXY_API_KEY": KEY,
            "APP_SECRET": SECRET,
            "APP_MODEL": "fake-2",
        }
        with start(request.param, **env) as process:
            yield Example(process, fake)


@pytest.fixture
def online(_online: Example) -> Iterator[Example]:
    """In front of a real server, by environment only."""
    _online.fake.reset()
    yield _online
    _online.fake.reset()


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]


# -- without a session ---------------------------------------------------------------------------


def test_visitors_are_sent_to_the_login(offline: Example) -> None:
    with offline.visitor() as visitor:
        answer = visitor.get("/")
        assert (answer.status_code, answer.headers["location"]) == (303, "login")
        assert visitor.get("/", follow_redirects=True).url.path == "/login"


def test_visitors_may_not_call(offline: Example) -> None:
    with offline.visitor() as visitor:
        assert_refused(visitor.get("/v1/models"), 401, "invalid_api_key")
        assert_refused(visitor.post("/v1/chat/completions", json=STREAM), 401, "invalid_api_key")


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("alice", "builder"),
        ("alice", ""),
        ("nobody", "wonderland"),
        ("nobody", ""),
        ("", ""),
        ("alice", "pass\ud800wörd"),
    ],
)
def test_a_wrong_password_is_refused(offline: Example, user: str, password: str) -> None:
    with offline.visitor() as visitor:
        body = f"user={user}&password={password}".encode("utf-8", "surrogatepass")
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = visitor.post("/login", content=body, headers=headers)
        assert answer.status_code == 403
        assert "do not fit" in answer.text
        assert "set-cookie" not in answer.headers
        assert visitor.get("/v1/models").status_code == 401


def test_a_login_without_fields_is_refused(offline: Example) -> None:
    with offline.visitor() as visitor:
        assert visitor.post("/login").status_code == 403


def test_a_form_has_a_limit(offline: Example) -> None:
    with offline.visitor() as visitor:
        assert sign_in(visitor, password="x" * 5000).status_code == 413


def test_a_forged_session_is_nobodys(offline: Example) -> None:
    with offline.user() as user:
        name, value = next(iter(user.cookies.items()))
    with offline.visitor() as visitor:
        for forged in (value[:-4] + "AAAA", value.partition(".")[0], "x", ""):
            answer = visitor.get("/v1/models", headers={"Cookie": f"{name}={forged}"})
            assert_refused(answer, 401, "invalid_api_key")


# -- with a session ------------------------------------------------------------------------------


def test_signing_in_sets_a_cookie_that_pages_cannot_read(offline: Example) -> None:
    with offline.visitor() as visitor:
        answer = sign_in(visitor)
        assert (answer.status_code, answer.headers["location"]) == (303, ".")
        flags = answer.headers["set-cookie"].lower()
        assert "httponly" in flags
        assert "samesite=lax" in flags
        assert "secure" not in flags
        page = visitor.get("/")
        assert page.status_code == 200
        assert "alice" in page.text
        assert 'value="fake-1"' in page.text


def test_both_users_can_sign_in(offline: Example) -> None:
    with offline.visitor() as visitor:
        assert sign_in(visitor, "bob", "builder").status_code == 303
        assert visitor.get("/v1/models").status_code == 200


def test_a_user_can_chat_offline(offline: Example) -> None:
    with offline.user() as user:
        assert user.get("/v1/models").json()["data"][0]["id"] == "fake-1"
        whole = user.post("/v1/chat/completions", json=CHAT).json()
        assert whole["choices"][0]["message"]["content"] == "You said: good morning"
        answer = user.post("/v1/chat/completions", json=STREAM)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.count("\n\n") > 4
        assert answer.text.endswith("data: [DONE]\n\n")


def test_signing_out_ends_it(offline: Example) -> None:
    with offline.user() as user:
        answer = user.post("/logout")
        assert (answer.status_code, answer.headers["location"]) == (303, "login")
        assert user.get("/").status_code == 303
        assert_refused(user.get("/v1/models"), 401, "invalid_api_key")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_cannot_use_the_session(offline: Example, site: str) -> None:
    with offline.user() as user:
        headers = {"Sec-Fetch-Site": site}
        answer = user.post("/v1/chat/completions", json=CHAT, headers=headers)
        assert_refused(answer, 403, "forbidden")
        assert user.post("/logout", headers=headers).status_code == 403
        form = {"user": "bob", "password": "builder"}
        assert user.post("/login", data=form, headers=headers).status_code == 403
        assert "alice" in user.get("/").text


def test_the_page_itself_can_use_the_session(offline: Example) -> None:
    with offline.user() as user:
        for site in ("same-origin", "none"):
            answer = user.get("/v1/models", headers={"Sec-Fetch-Site": site})
            assert answer.status_code == 200


def test_the_page_needs_nothing_but_this_app(offline: Example) -> None:
    with offline.user() as user:
        for path in ("/", "/login"):
            page = user.get(path)
            assert page.headers["cache-control"] == "no-store"
            policy = page.headers["content-security-policy"]
            assert policy.startswith("default-src 'self';")
            assert "unsafe" not in policy
            # What the policy would block is not there.
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", page.text)
            assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
            assert assets
            for asset in assets:
                assert user.get(f"/{asset}").status_code == 200, asset
        script = user.get("/static/chat.js")
        assert script.headers["content-type"].partition(";")[0] == "text/javascript"


# -- scripts, of the FastAPI example ---------------------------------------------------------------

TOKEN, OLD_TOKEN, LEFT_TOKEN = "token-of-alice", "old-token-of-alice", "token-of-mallory"
TOKENS = f"alice={hash_api_key(TOKEN)}, alice={hash_api_key(OLD_TOKEN)},mallory=" + hash_api_key(
    LEFT_TOKEN
)


@pytest.fixture(scope="module")
def scripted() -> Iterator[Example]:
    fake = FakeUpstream()
    with fake.serve() as server:
        env = {"AI_PROXY_UPSTREAM": server.base_url, "AI_PROXY_API_KEY": KEY, "APP_TOKENS": TOKENS}
        with start("fastapi", **env) as process:
            yield Example(process, fake)


@pytest.mark.parametrize("token", [TOKEN, OLD_TOKEN])
def test_a_script_needs_nothing_but_its_token(scripted: Example, token: str) -> None:
    scripted.fake.reset()
    base_url = f"{scripted.process.url}/v1"
    with openai.OpenAI(base_url=base_url, api_key=token, max_retries=0) as client:
        said = client.chat.completions.create(
            model="fake-1", messages=[{"role": "user", "content": "good morning"}]
        )
    assert said.choices[0].message.content == "You said: good morning"
    [seen] = scripted.fake.requests
    assert seen.header("authorization") == f"Bearer {KEY}"
    assert token not in repr(seen.headers)


@pytest.mark.parametrize("token", ["x", LEFT_TOKEN, hash_api_key(TOKEN), TOKEN.upper(), "\xfc"])
@pytest.mark.parametrize("signed_in", [False, True])
def test_a_wrong_token_is_nobodys(scripted: Example, token: str, signed_in: bool) -> None:
    scripted.fake.reset()
    with scripted.user() if signed_in else scripted.visitor() as client:
        authorization = f"Bearer {token}".encode("latin-1")
        answer = client.get("/v1/models", headers={b"Authorization": authorization})
    assert_refused(answer, 401, "invalid_api_key")
    assert scripted.fake.requests == []


def test_tokens_open_no_page_and_show_nowhere(scripted: Example) -> None:
    with scripted.visitor() as visitor:
        page = visitor.get("/", headers={"Authorization": f"Bearer {TOKEN}"})
        assert page.status_code == 303
    with scripted.user() as user:
        shown = user.get("/").text + scripted.process.log
    for secret in (TOKEN, LEFT_TOKEN, hash_api_key(TOKEN)):
        assert secret not in shown


def test_a_token_that_is_no_hash_stops_the_start() -> None:
    said = pytest.raises(AssertionError, match="APP_TOKENS: write USER=sha256")
    with said, start("fastapi", APP_TOKENS=f"alice={TOKEN}"):
        raise AssertionError("it started")


def test_the_readme_makes_a_token_that_fits() -> None:
    readme = (EXAMPLES / "fastapi_app" / "README.md").read_text()
    found = re.search(r"/python -c '(.*?)'$", readme, re.MULTILINE | re.DOTALL)
    assert found is not None
    made = subprocess.run([sys.executable, "-c", found[1]], capture_output=True, check=True)
    token, stored = made.stdout.decode().split()
    assert len(token) >= 40
    assert stored == hash_api_key(token)


# -- in front of a real server -------------------------------------------------------------------


@pytest.mark.slow
def test_a_stream_reaches_the_page_as_it_comes(online: Example) -> None:
    with (
        online.user() as user,
        online.fake.hold("chunks") as gate,
        user.stream("POST", "/v1/chat/completions", json=STREAM) as answer,
    ):
        lines = answer.iter_lines()
        gate.release()
        assert '"role":"assistant"' in next(lines)
        gate.wait_until_held()
        assert online.fake.requests[-1].chunks_sent == 1  # the second is still to come
        gate.open()
        assert list(lines)[-2:] == ["data: [DONE]", ""]


def test_the_upstream_sees_the_servers_key_and_nothing_of_the_user(online: Example) -> None:
    with online.user() as user:
        cookies = list(user.cookies.values())
        own = {"Authorization": "Basic of-the-browser", "Sec-Fetch-Site": "same-origin"}
        assert user.post("/v1/chat/completions", json=CHAT, headers=own).status_code == 200
    seen = online.fake.wait_for_request()
    assert (seen.path, seen.json()) == ("/v1/chat/completions", CHAT)
    assert seen.header("authorization") == f"Bearer {KEY}"
    assert seen.header("cookie") is None
    lines = repr(seen.headers)
    assert cookies
    assert not any(cookie in lines for cookie in cookies)
    assert "of-the-browser" not in lines


def test_calls_that_are_refused_never_reach_the_upstream(online: Example) -> None:
    with online.visitor() as visitor, online.user() as user:
        assert visitor.post("/v1/chat/completions", json=CHAT).status_code == 401
        answer = user.post("/v1/chat/completions", json=CHAT, headers=CROSS_SITE)
        assert answer.status_code == 403
    assert online.fake.requests == []


def test_secrets_show_in_no_page_answer_or_log(online: Example) -> None:
    online.fake.fail(500, path="/embeddings")
    with online.user() as user, online.visitor() as visitor:
        answers = [
            visitor.get("/login"),
            sign_in(visitor, password="no"),
            visitor.get("/v1/models"),
            user.get("/"),
            user.get("/static/page.js"),
            user.get("/v1/models"),
            user.post("/v1/chat/completions", json=CHAT),
            user.post("/v1/chat/completions", json=STREAM),
            user.post("/v1/embeddings", json={"model": "fake-1", "input": "x"}),
            user.get("/v1/nowhere"),
        ]
    assert [answer.status_code for answer in answers][-2:] == [500, 404]
    shown = "".join(f"{answer.headers}{answer.text}" for answer in answers) + online.process.log
    assert "You said:" in shown
    for secret in (KEY, SECRET, "scrypt:"):
        assert secret not in shown


def test_the_page_names_the_model_of_the_environment(online: Example) -> None:
    with online.user() as user:
        assert 'value="fake-2"' in user.get("/").text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fastapi", "flask-gthread"])
def test_https_and_prefix_come_from_the_environment(kind: str) -> None:
    env = {"APP_HTTPS": "1", "AI_PROXY_PREFIX": "/ai/v1"}
    with start(kind, **env) as process, Example(process, FakeUpstream()).visitor() as visitor:
        cookie = sign_in(visitor).headers["set-cookie"]
        assert "; secure" in cookie.lower()
        # The client rightly keeps that cookie from plain HTTP.
        headers = {"Cookie": cookie.partition(";")[0]}
        assert 'data-base-urls="ai/v1"' in visitor.get("/", headers=headers).text
        assert visitor.get("/ai/v1/models", headers=headers).status_code == 200
        assert visitor.get("/v1/models", headers=headers).status_code == 404


def test_the_scripts_never_make_markup_of_text() -> None:
    for script in (EXAMPLES / "static").glob("*.js"):
        text = script.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, f"{script.name}: {word}"
