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
        self.run("try { localStorage.clear() } catch {}")
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


# The text that has less contrast to what is behind it than WCAG 2.2 asks for (1.4.3, AA).
PALE = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
function rgba(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
}
const over = (top, under) => top.slice(0, 3).map((each, n) => each * top[3] + under[n] * (1 - top[3])).concat(1);
function behind(node) {
  if (!node) return [255, 255, 255, 1];
  const own = rgba(getComputedStyle(node).backgroundColor);
  return own[3] === 1 ? own : over(own, behind(node.parentElement));
}
function light([r, g, b]) {
  const [x, y, z] = [r, g, b].map(each => (each /= 255) <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
const pale = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let text; (text = walk.nextNode());) {
  const node = text.parentElement;
  if (!text.data.trim() || !node.checkVisibility() || node.closest("script, style, noscript, .skip, .unseen")) continue;
  const style = getComputedStyle(node);
  const ground = behind(node);
  const ink = over(rgba(node.namespaceURI.endsWith("svg") ? style.fill : style.color), ground);
  const [most, least] = [light(ink), light(ground)].sort((a, b) => b - a);
  const contrast = (most + 0.05) / (least + 0.05);
  if (contrast < 4.5) pale.push(`${text.data.trim().slice(0, 30)}: ${contrast.toFixed(2)}`);
}
return [...new Set(pale)];
"""

# What sticks out of the page or is cut off within its box though nothing says so.
CLIPPED = """
const found = [];
if (document.documentElement.scrollWidth > innerWidth) found.push(`page: ${document.documentElement.scrollWidth}`);
for (const node of document.querySelectorAll("main *, header *")) {
  const box = node.getBoundingClientRect();
  if (!box.width || node.closest(".unseen, .scroll, svg, .skip, noscript, thead, .bar")) continue;
  if (box.right > innerWidth + 1) found.push(`${node.tagName} ${node.className}: ${box.right}`);
}
for (const node of document.querySelectorAll(".tile dd, .tile dt, h2, h3, .chip, .number, button, .button")) {
  if (!node.checkVisibility() || getComputedStyle(node).clipPath !== "none") continue;
  if (node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== "inline") found.push(`${node.textContent}: cut`);
}
for (const node of document.querySelectorAll(".scroll")) {
  if (node.scrollWidth > node.clientWidth + 1) found.push(`${node.id || node.parentElement.id}: ${node.scrollWidth} in ${node.clientWidth}`);
}
return found;
"""
