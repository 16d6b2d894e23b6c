"""A page on another origin, in a real headless Chromium, calls the proxy and reads its answers.

Needs Debian's `chromium` and `chromium-driver`, as `test_page.py` does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.support.ui import WebDriverWait

from ai_proxy_mw import CORS, AIProxy, Request
from ai_proxy_mw.testing import FakeUpstream
from tests.browser.test_page import FLAGS
from tests.conftest import IN_PROCESS
from tests.servers import gunicorn, serve_process, serve_wsgi

# `call` fills `window.seen` as the answer comes; nothing in it waits.
PAGE = """<!doctype html><title>elsewhere</title><link rel="icon" href="data:,"><script>
async function call(url, body, credentials) {
  const seen = window.seen = {chunks: [], text: "", done: false};
  try {
    const answer = await fetch(url, {
      method: "POST",
      credentials,
      headers: {
        "content-type": "application/json",
        "authorization": "Bearer unused",
        "x-stainless-lang": "js",
        "anthropic-dangerous-direct-browser-access": "true",
      },
      body: JSON.stringify(body),
    });
    seen.status = answer.status;
    seen.headers = Object.fromEntries(answer.headers);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let piece; !(piece = await reader.read()).done;) {
      seen.chunks.push(piece.value);
      seen.text += piece.value;
    }
  } catch (error) {
    seen.error = String(error);
  }
  seen.done = true;
}
</script>"""

CHAT = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}
LIMIT = "2/hour"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    profile: Path = tmp_path_factory.mktemp("profile")
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    service = ChromeService(executable_path=shutil.which("chromedriver") or "chromedriver")
    driver = Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The origin of a page that is not the app's."""
    site = Flask("elsewhere")
    site.add_url_rule("/", view_func=lambda: PAGE)
    with serve_wsgi(site) as url:
        yield url


def _signed_in(request: Request) -> str | None:
    return request.cookies.get("user")


@contextmanager
def _in_process(door: str, upstream: str, elsewhere: str) -> Iterator[str]:
    proxy = AIProxy(
        upstream=upstream,
        identify=_signed_in,
        cors=CORS(allow_origins=[elsewhere], allow_credentials=True),
        limits=[LIMIT],
    )
    with IN_PROCESS[door](proxy) as url:
        yield f"{url}/v1"


@contextmanager
def _gunicorn(mount: str, upstream: str, elsewhere: str) -> Iterator[str]:
    env = {"AI_PROXY_UPSTREAM": upstream, "PAGE_ORIGIN": elsewhere, "AI_PROXY_LIMITS": LIMIT}
    command = gunicorn("tests.apps.flask_users_app:app", "-k", "gthread", "--threads", "8")
    with serve_process(command, env) as process:
        yield f"{process.url}/{mount}/v1"


# Given the upstream and the page's origin, they serve the proxy and give its URL.
APPS: dict[str, Callable[[str, str], AbstractContextManager[str]]] = {
    "uvicorn": partial(_in_process, "uvicorn"),
    "werkzeug": partial(_in_process, "werkzeug"),
    "gunicorn-before": partial(_gunicorn, "before"),  # a middleware that asks the app
    "gunicorn-inside": partial(_gunicorn, "inside"),  # a route of the app
}


@pytest.fixture(params=APPS)
def v1(
    request: pytest.FixtureRequest, fake: FakeUpstream, elsewhere: str, browser: Chrome
) -> Iterator[str]:
    """The app that lets that origin in, with a user signed in; the page is open."""
    with fake.serve() as upstream, APPS[request.param](upstream.base_url, elsewhere) as url:
        browser.get(elsewhere)
        browser.add_cookie({"name": "user", "value": "alice"})  # ports share their cookies
        yield url


def _call(browser: Chrome, v1: str, *, stream: bool = False, credentials: str = "include") -> None:
    body = {**CHAT, "stream": stream}
    start: Any = browser.execute_script  # untyped in selenium
    start("call(...arguments)", f"{v1}/chat/completions", body, credentials)


def _seen(browser: Chrome) -> dict[str, Any]:
    run: Any = browser.execute_script
    found: dict[str, Any] = run("return window.seen")
    return found


def _answer(browser: Chrome) -> dict[str, Any]:
    WebDriverWait(browser, 20).until(lambda b: _seen(b)["done"])
    return _seen(browser)


def _until_said(browser: Chrome, word: str) -> None:
    WebDriverWait(browser, 20).until(lambda b: word in _seen(b)["text"])


def test_a_call_with_the_login_passes_its_preflight(
    browser: Chrome, v1: str, fake: FakeUpstream
) -> None:
    _call(browser, v1)
    seen = _answer(browser)
    assert "error" not in seen
    assert seen["status"] == 200
    assert '"chat.completion"' in seen["text"]
    assert seen["headers"]["x-request-id"].startswith("req_")
    assert seen["headers"]["x-upstream-request-id"]
    assert [each.method for each in fake.requests] == ["POST"]  # the preflight went no further


def test_a_stream_arrives_piece_by_piece(browser: Chrome, v1: str, fake: FakeUpstream) -> None:
    fake.words = ["one ", "two ", "three "]
    with fake.hold() as gate:
        _call(browser, v1, stream=True)
        gate.wait_until_held()
        gate.release()  # the role
        for word, unsaid in (("one ", "two "), ("two ", "three ")):
            gate.release()
            _until_said(browser, word)
            assert unsaid not in _seen(browser)["text"]
        gate.open()
        seen = _answer(browser)
    assert "error" not in seen
    assert "data: [DONE]" in seen["text"]
    assert len(seen["chunks"]) >= 3


def test_a_401_can_be_read(browser: Chrome, v1: str, fake: FakeUpstream) -> None:
    _call(browser, v1, credentials="omit")
    seen = _answer(browser)
    assert seen["status"] == 401
    assert "invalid_api_key" in seen["text"]
    assert seen["headers"]["x-request-id"]
    assert fake.requests == []


def test_an_upstreams_429_can_be_read(browser: Chrome, v1: str, fake: FakeUpstream) -> None:
    limits = {"retry-after": "7", "x-ratelimit-remaining-requests": "77", "x-should-retry": "true"}
    fake.fail(429, message="Slow down.", headers=limits)
    _call(browser, v1)
    seen = _answer(browser)
    assert seen["status"] == 429
    assert "Slow down." in seen["text"]
    # How the provider's account stands is not told where the proxy counts itself.
    assert {**limits, "x-ratelimit-remaining-requests": "1"}.items() <= seen["headers"].items()


def test_a_429_of_our_own_can_be_read(browser: Chrome, v1: str, fake: FakeUpstream) -> None:
    for status in (200, 200, 429):
        _call(browser, v1)
        seen = _answer(browser)
        assert seen["status"] == status
    assert "rate_limit_exceeded" in seen["text"]
    assert int(seen["headers"]["retry-after"]) > 0
    assert seen["headers"]["x-ratelimit-remaining-requests"] == "0"
    assert len(fake.requests) == 2


def test_a_502_can_be_read(browser: Chrome, v1: str, fake: FakeUpstream) -> None:
    fake.disconnect(after="request")
    _call(browser, v1)
    seen = _answer(browser)
    assert seen["status"] == 502
    assert "upstream_disconnected" in seen["text"]
    assert seen["headers"]["x-request-id"]


def test_a_page_that_is_not_listed_calls_nothing(
    browser: Chrome, v1: str, fake: FakeUpstream, elsewhere: str
) -> None:
    browser.get(elsewhere.replace("127.0.0.1", "localhost"))  # another name is another origin
    _call(browser, v1)
    assert "Failed to fetch" in _answer(browser)["error"]
    assert fake.requests == []
