"""The examples' page in a real headless Chromium, with nothing but the login.

Needs Debian's `chromium` and `chromium-driver`; `.ci/run` installs them and runs this folder, which
the everyday suite leaves out.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from ai_proxy_mw.testing import FakeUpstream
from tests.servers import Process
from tests.test_examples import KEY, start

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (*FLAGS, f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = ChromeService(executable_path=shutil.which("chromedriver") or "chromedriver")
    driver = Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def fake() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture(params=["fastapi", "flask-gthread"])
def app(request: pytest.FixtureRequest, fake: FakeUpstream) -> Iterator[Process]:
    fake.reset()
    with fake.serve() as upstream:
        env = {"AI_PROXY_UPSTREAM": upstream.base_url, "AI_PROXY_API_KEY": KEY}
        with start(request.param, **env) as process:
            yield process


def _sign_in(browser: Chrome, url: str) -> None:
    browser.get(url)
    browser.find_element(By.ID, "user").send_keys("alice")
    browser.find_element(By.ID, "password").send_keys("wonderland", Keys.ENTER)
    WebDriverWait(browser, 10).until(lambda b: b.find_elements(By.ID, "question"))


def _talk(browser: Chrome) -> str:
    return browser.find_element(By.ID, "talk").text


def test_an_answer_streams_into_the_page(browser: Chrome, app: Process, fake: FakeUpstream) -> None:
    fake.words = ["Wir ", "haben ", "<b>drei</b> ", "davon."]
    _sign_in(browser, app.url)
    with fake.hold() as gate:
        browser.find_element(By.ID, "question").send_keys("Schuhe?", Keys.ENTER)
        gate.wait_until_held()
        gate.release(2)  # the role, then the first word
        WebDriverWait(browser, 10).until(lambda b: "Wir" in _talk(b))
        assert "drei" not in _talk(browser)
        gate.open()
        WebDriverWait(browser, 10).until(lambda b: "davon." in _talk(b))
    assert "<b>drei</b>" in _talk(browser)  # text stays text
    assert KEY not in browser.page_source
    get_log: Any = browser.get_log  # untyped in selenium
    assert [entry for entry in get_log("browser") if entry["level"] == "SEVERE"] == []


def test_stopping_ends_the_upstream_call(browser: Chrome, app: Process, fake: FakeUpstream) -> None:
    _sign_in(browser, app.url)
    with fake.hold() as gate:
        browser.find_element(By.ID, "question").send_keys("Hello", Keys.ENTER)
        gate.wait_until_held()
        gate.release()
        gate.wait_until_held()
        pressed = time.monotonic()
        browser.find_element(By.ID, "stop").click()
        seen = fake.wait_for_disconnect()
    assert seen.disconnected_at is not None
    assert seen.disconnected_at - pressed < 2


def test_an_error_is_told_in_words(browser: Chrome, app: Process, fake: FakeUpstream) -> None:
    fake.fail(429, message="Too many questions.", times=3)
    _sign_in(browser, app.url)
    browser.find_element(By.ID, "question").send_keys("Hello", Keys.ENTER)
    trouble = browser.find_element(By.ID, "trouble")
    WebDriverWait(browser, 10).until(lambda b: "Too many questions." in trouble.text)
    assert "req_" in trouble.text
