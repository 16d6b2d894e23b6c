"""A browser that looks at a dashboard, and what it is asked about it."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.test_page import FLAGS

HIDDEN_BARS = "--hide-scrollbars"


@contextmanager
def chrome(profile: Path) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (*FLAGS, HIDDEN_BARS, "--lang=en-US", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = ChromeService(executable_path=shutil.which("chromedriver") or "chromedriver")
    driver = Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


class Looker:
    """Somebody who is signed in, with a screen of some size."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        self.url = url
        self.told("Network.enable")
        self.told("Network.clearBrowserCookies")
        self.told("Network.setCookie", name="admin", value="me", url=url)
        self.log()

    def told(self, command: str, **arguments: Any) -> Any:
        execute: Any = self.browser.execute_cdp_cmd  # untyped in selenium
        return execute(command, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        execute: Any = self.browser.execute_script
        return execute(script, *arguments)

    def log(self) -> list[str]:
        """What the console has said of faults since it was asked last."""
        get_log: Any = self.browser.get_log
        return [line["message"] for line in get_log("browser") if line["level"] != "INFO"]

    def screen(self, width: int, *, height: int = 900, scheme: str = "light") -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.told("Emulation.setDeviceMetricsOverride", **size, mobile=width < 500)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.told("Emulation.setEmulatedMedia", features=features)

    def open(self, path: str = "/ai") -> None:
        self.browser.get(f"{self.url}{path}")
        self.until("return document.getElementById('state').textContent !== 'Loading…'")

    def until(self, script: str, *arguments: Any) -> Any:
        return WebDriverWait(self.browser, 20).until(lambda _: self.run(script, *arguments))

    def text(self, selector: str) -> str:
        found: str = self.run(
            "return [...document.querySelectorAll(arguments[0])].map(n => n.innerText).join('\\n')",
            selector,
        )
        return found

    def picture(self, *, whole: bool = True) -> bytes:
        if whole:
            size = self.run("return [innerWidth, document.documentElement.scrollHeight]")
            self.told(
                "Emulation.setDeviceMetricsOverride",
                width=size[0],
                height=size[1],
                deviceScaleFactor=1,
                mobile=size[0] < 500,
            )
            self.run("return new Promise(done => setTimeout(done, 250))")  # charts fit themselves
        return base64.b64decode(self.told("Page.captureScreenshot", format="png")["data"])


PALE = (Path(__file__).parent / "pale.js").read_text()
CLIPPED = (Path(__file__).parent / "clipped.js").read_text()
