"""The dashboard in a real headless Chromium: what it shows, to whom, and how it looks.

Needs Debian's `chromium` and `chromium-driver`, as `test_page.py` does. Pictures of what was seen
are left in `var/dashboard/`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import httpx
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from ai_proxy_mw import AIProxy, Price, Prices, Upstream
from ai_proxy_mw.accounting.record import Record
from ai_proxy_mw.limiting.closest import Closest
from ai_proxy_mw.metrics.base import StatsRow
from ai_proxy_mw.testing import FakeUpstream
from tests.browser.dashboards import CLIPPED, PALE, Looker, chrome
from tests.conftest import IN_PROCESS
from tests.dashboard.house import ARTEFACTS, Told, call, door, lively, make, signed_in
from tests.servers import serve_asgi

EVIL = "<img src=x onerror=\"document.title='owned'\"></script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chrome(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def told() -> Told:
    return lively(Told())


@pytest.fixture
def looker(browser: Chrome, told: Told) -> Iterator[Looker]:
    with serve_asgi(door(make(told))) as url:
        looker = Looker(browser, url)
        looker.screen(1280)
        yield looker
        browser.get("about:blank")  # or it goes on asking a server that is gone


@pytest.mark.parametrize("kind", IN_PROCESS)
def test_the_numbers_of_real_calls(browser: Chrome, kind: str) -> None:
    fake = FakeUpstream()
    with fake.serve() as served:
        proxy = AIProxy(
            upstream=Upstream(name="first", base_url=served.base_url),
            api_keys={"alice": "sk-alice", EVIL: "sk-evil"},
            limits=["6/hour"],
            prices=Prices({"fake-1": Price(input=1_000_000, output=0)}),  # a dollar a token
            dashboard="/ai",
            dashboard_identify=signed_in,
        )
        with IN_PROCESS[kind](proxy) as url, httpx.Client(base_url=url) as client:
            spent = sum(_call(client, "sk-alice", "fake-1") for _ in range(4))
            _call(client, "sk-evil", EVIL)
            fake.fail(500)
            _call(client, "sk-alice", "fake-1")
            looker = Looker(browser, url)
            looker.screen(1280)
            looker.open()
            looker.until("return document.querySelectorAll('#tail tbody tr').length === 6")
            tiles = looker.text("#tiles")
            assert f"Requests\n{len(fake.requests)}" in tiles
            assert f"Cost\n${spent}.00\nand 1 call at an unknown price" in tiles
            assert "Error rate\n16.7%\n1 error" in tiles
            assert "alice" in looker.text("#top-2")
            assert "<img src=x" in looker.text("#tail .c-who")
            assert "<img src=x" in looker.text("#tail .c-model")
            assert "first" in looker.text("#upstreams")
            assert "alice" in looker.text("#limits")
            _call(client, "sk-alice", "fake-1")  # the sixth
            looker.until("return document.querySelectorAll('#tail tbody tr').length === 7")
            assert looker.run("return document.querySelectorAll('main img').length") == 0
            assert looker.log() == []
            looker.browser.get("about:blank")


def _call(client: httpx.Client, key: str, model: str) -> int:
    """Asks something; how many tokens went in."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    answer = client.post(
        "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}
    )
    tokens: int = answer.json().get("usage", {}).get("prompt_tokens", 0)
    return tokens


def _keep(looker: Looker, name: str) -> None:
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    (ARTEFACTS / f"{name}.png").write_bytes(looker.picture())


def test_who_is_not_signed_in_sees_nothing(looker: Looker, told: Told) -> None:
    looker.told("Network.clearBrowserCookies")
    for path in ("", "/", "/data", "/calls.csv"):
        looker.browser.get(f"{looker.url}/ai{path}")
        assert "You need to be signed in" in looker.browser.page_source
    assert told.asked == []


@pytest.mark.parametrize("path", ["/ai", "/ai/"])
def test_it_shows_the_numbers_and_breaks_no_rule(looker: Looker, told: Told, path: str) -> None:
    looker.open(path)
    tiles = looker.text("#tiles")
    assert f"{told.total.requests:,}" in tiles
    assert f"{told.total.error_rate * 100:.1f}%" in tiles
    assert f"${told.total.cost / 1e6:.2f}" in tiles
    assert f"${told.total.saved / 1e6:.2f}" in tiles
    for latency in ("874 ms", "3.42 s", "6.18 s", "mean 1.27 s"):
        assert latency in tiles
    assert "and 132 calls at an unknown price" in tiles
    models = looker.text("#top-1 tbody tr")
    first = told.rows["model"]["gpt-4.1"]
    assert "gpt-4.1" in models.splitlines()[0]
    assert f"{first.requests:,}" in models
    assert "unknown" in models.splitlines()[-1]  # of the last one no price is known
    assert "maria@shop.example" in looker.text("#top-2")
    assert "cooling down, 18 s" in looker.text("#upstreams")
    assert "$2.50/day" in looker.text("#limits")
    assert looker.log() == []


def test_what_is_not_known_is_no_zero(looker: Looker, told: Told) -> None:
    hits = StatsRow(requests=3, hits=2, saved_unpriced=2, saved_tokens=90)
    told.total, told.points, told.rows["model"] = hits, [hits], {"in-house": hits}
    told.other = StatsRow(requests=7)
    looker.open()
    assert "90 tokens, 2 hits at an unknown price" in looker.text("#tiles")
    assert "unknown saved" in looker.text("#charts")
    assert "unknown" in looker.text("#top-1 tbody")
    assert "7 calls of yet others" in looker.text("#top-1")
    assert looker.log() == []


def test_other_windows_and_names_are_asked_for(looker: Looker, told: Told) -> None:
    looker.open()
    assert set(told.asked) == {("1h", "model"), ("1h", "subject")}
    looker.run("document.querySelector('input[value=\"30d\"]').click()")
    looker.until("return document.querySelector('#top-1 a').href.includes('window=30d')")
    Select(looker.browser.find_element(By.CSS_SELECTOR, "#top-1 select")).select_by_value(
        "endpoint"
    )
    looker.until("return document.querySelector('#top-1').innerText.includes('POST /responses')")
    assert looker.text("#top-1 h2") == "Top endpoints"
    assert ("30d", "endpoint") in told.asked
    link = looker.run("return document.querySelector('#top-1 a').href")
    assert link == f"{looker.url}/ai/stats.csv?window=30d&by=endpoint"
    looker.open()  # the choice is kept
    assert looker.run("return document.querySelector('input[name=window]:checked').value") == "30d"
    assert looker.log() == []


def test_the_tail_moves_until_it_is_paused(looker: Looker, told: Told) -> None:
    looker.open()
    chance = random.Random(1)
    told.records = [call(chance, told.now, 1001), *told.records[:-1]]
    looker.until("return document.querySelector('#tail tbody tr').title === 'req_1001'")
    looker.browser.find_element(By.ID, "pause").click()
    told.records = [call(chance, told.now, 1002), *told.records[:-1]]
    looker.until("return document.getElementById('tail-state').textContent === 'paused, 1 new'")
    assert looker.run("return document.querySelector('#tail tbody tr').title") == "req_1001"
    looker.browser.find_element(By.ID, "pause").click()
    assert looker.run("return document.querySelector('#tail tbody tr').title") == "req_1002"


def test_nothing_is_asked_while_it_is_off_or_hidden(looker: Looker, told: Told) -> None:
    looker.open()
    looker.browser.find_element(By.ID, "refresh").click()
    assert looker.text("#state").startswith("As of")
    asked = len(told.asked)
    looker.run("return new Promise(done => setTimeout(done, 3500))")
    assert len(told.asked) == asked
    looker.browser.find_element(By.ID, "refresh").click()
    looker.until("return document.getElementById('state').textContent.startsWith('Live')")
    looker.run(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    asked = len(told.asked)
    looker.run("return new Promise(done => setTimeout(done, 3500))")
    assert len(told.asked) == asked
    looker.run(
        "Object.defineProperty(document, 'hidden', {value: false, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    looker.run("return new Promise(done => setTimeout(done, 500))")
    assert len(told.asked) > asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 820, 1200])
def test_it_fits_and_can_be_read(looker: Looker, told: Told, width: int, scheme: str) -> None:
    looker.screen(width, scheme=scheme)
    looker.open()
    assert looker.run(CLIPPED) == []
    assert looker.run(PALE) == []
    assert looker.run("return document.querySelector('td.c-who').clientWidth") > 90
    assert looker.run("return document.querySelector('.c-model .name').clientWidth") > 90
    ground = looker.run("return getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(244, 245, 248)", "dark": "rgb(12, 14, 20)"}[scheme]
    assert looker.log() == []
    _keep(looker, f"{scheme}-{width}")


def test_the_theme_is_chosen_and_kept(looker: Looker) -> None:
    looker.open()
    button = looker.browser.find_element(By.ID, "theme")
    ground = "return getComputedStyle(document.body).backgroundColor"
    seen = []
    for _ in range(3):
        button.click()
        seen.append((button.text, looker.run(ground)))
    assert seen == [
        ("Theme: light", "rgb(244, 245, 248)"),
        ("Theme: dark", "rgb(12, 14, 20)"),
        ("Theme: auto", "rgb(244, 245, 248)"),
    ]
    button.click()
    button.click()
    looker.open()
    assert looker.run(ground) == "rgb(12, 14, 20)"


def test_all_of_it_can_be_reached_by_keyboard(looker: Looker) -> None:
    looker.open()
    stops = []
    for _ in range(40):
        ActionChains(looker.browser).send_keys(Keys.TAB).perform()
        stop = looker.run(
            "const node = document.activeElement;"
            "if (node === document.body) return null;"
            "const style = getComputedStyle(node.matches('.segments input') ?"
            " node.nextElementSibling : node);"
            "return [node.getAttribute('aria-label') || node.textContent.trim() || node.value,"
            " style.outlineStyle, node.id]"
        )
        if stop is None:
            break
        assert stop[1] not in ("none", "hidden"), stop  # the focus is seen
        stops.append(stop[0])
    assert stops[0] == "Skip to the numbers"
    for name in ("1h", "Auto-refresh", "Theme: auto", "Requests over time", "As a table", "Pause"):
        assert name in stops
    assert stops.count("Show the top") == 2
    assert sum("CSV" in name for name in stops) == 3


def test_charts_are_read_by_arrow_keys_and_as_tables(looker: Looker, told: Told) -> None:
    looker.open()
    plot = looker.browser.find_element(By.CSS_SELECTOR, ".plot")
    plot.send_keys(Keys.END)
    last = told.points[-1]
    said = plot.get_attribute("aria-valuetext") or ""
    assert said.endswith(f"no error {last.requests - last.errors}, errors {last.errors}")
    plot.send_keys(Keys.ARROW_LEFT)
    assert plot.get_attribute("aria-valuenow") == "58"
    assert looker.run("return document.querySelector('.tip').hidden") is False
    plot.send_keys(Keys.ESCAPE)
    assert looker.run("return document.querySelector('.tip').hidden") is True
    looker.browser.find_element(By.CSS_SELECTOR, ".chart summary").click()
    rows = looker.until("return document.querySelectorAll('.chart tbody tr').length")
    assert rows == 60
    heads = looker.run(
        "return [...document.querySelectorAll('.chart th[scope=col]')].map(n => n.textContent)"
    )
    assert heads == ["Time", "no error", "errors"]
    assert "Requests: 4," in looker.run("return document.querySelector('.plot svg').ariaLabel")


def test_text_stays_text(looker: Looker, told: Told) -> None:
    told.rows = {by: {EVIL: StatsRow(requests=3, errors=1)} for by in ("model", "subject")}
    told.records = [
        Record(
            time=told.now,
            request_id=EVIL,
            subject=EVIL,
            endpoint=EVIL,
            model=EVIL,
            model_used=f"{EVIL}2",
            upstream=EVIL,
            status=502,
            error=EVIL,
            outcome="failed",
        )
    ]
    told.close = [
        Closest(
            limit=EVIL, of=EVIL, per="subject", who=EVIL, amount=9, remaining=1, resets=told.now
        )
    ]
    looker.open()
    for part in (
        "#top-1",
        "#top-2",
        "#tail .c-who",
        "#tail .c-status",
        "#tail .c-model",
        "#limits",
    ):
        assert "<img src=x" in looker.text(part), part
    assert looker.run("return document.querySelectorAll('main img').length") == 0
    assert looker.run("return document.scripts.length") == 2
    assert looker.run("return document.title") == "AI proxy"
    assert looker.log() == []  # not even tried
    assert looker.run(CLIPPED) == []
    # Who finds a hole in the page nevertheless finds the browser's own rules behind it.
    assert (
        looker.run(
            "try { document.body.innerHTML = arguments[0]; return 'done' } catch (error)"
            " { return error.name }",
            EVIL,
        )
        == "TypeError"
    )


def test_an_empty_house(looker: Looker, told: Told) -> None:
    told.__init__()  # type: ignore[misc]
    looker.open()
    assert "No calls yet" in looker.text("#tail")
    assert "No calls in this time" in looker.text("#top-1")
    assert "Nobody is close to a limit" in looker.text("#limits")
    assert looker.run("return document.querySelectorAll('.plot .nothing').length") == 3
    assert looker.run(PALE) == []
    assert looker.log() == []
    _keep(looker, "empty")


def test_a_store_that_is_silent_is_told_and_then_forgotten(looker: Looker, told: Told) -> None:
    looker.open()
    told.down = True
    looker.until("return !document.getElementById('trouble').hidden")
    assert "The store of the numbers does not answer" in looker.text("#trouble")
    assert f"{told.total.requests:,}" in looker.text("#tiles")  # what was known stays
    assert looker.run("return getComputedStyle(document.querySelector('.tiles')).opacity") < "1"
    assert looker.run(CLIPPED) == []
    _keep(looker, "store-down")
    told.down = False
    looker.until("return document.getElementById('trouble').hidden")


def test_a_session_that_has_ended_is_told_once(looker: Looker, told: Told) -> None:
    looker.open()
    looker.told("Network.clearBrowserCookies")
    looker.until("return !document.getElementById('trouble').hidden")
    assert "Your session has ended" in looker.text("#trouble")
    asked = looker.run("return performance.getEntriesByType('resource').length")
    looker.run("return new Promise(done => setTimeout(done, 3500))")
    assert looker.run("return performance.getEntriesByType('resource').length") == asked
    assert all("401" in line for line in looker.log())
    _keep(looker, "session-ended")


def test_a_server_that_is_gone_is_told(browser: Chrome, told: Told) -> None:
    with serve_asgi(door(make(told))) as url:
        looker = Looker(browser, url)
        looker.screen(1280)
        looker.open()
    looker.until("return !document.getElementById('trouble').hidden")
    assert "The server cannot be reached" in looker.text("#trouble")
    browser.get("about:blank")
