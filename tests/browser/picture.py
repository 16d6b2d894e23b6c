"""Makes `docs/dashboard.png`, light and dark, of numbers like those of a shop of middle size.

    python -m tests.browser.picture

Looks best where the typeface Inter is installed (Debian's `fonts-inter`).
"""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

from tests.browser.dashboards import Looker, chrome
from tests.dashboard.house import Told, door, lively, make
from tests.servers import ROOT, serve_asgi

SIZE = (1240, 900)

# The one lies on the other, and is cut off at a slanted line.
BOTH = """
const [light, dark] = arguments;
document.body.style.cssText = "margin: 0; position: relative; background: #fff";
const slant = "polygon(58% 0, 100% 0, 100% 100%, 42% 100%)";
for (const [data, shape] of [[light, "none"], [dark, slant]]) {
  const image = new Image();
  image.src = `data:image/png;base64,${data}`;
  image.style.cssText = `position: absolute; inset: 0; clip-path: ${shape}`;
  document.body.append(image);
}
return Promise.all([...document.images].map(image => image.decode())).then(() => true);
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as profile, chrome(Path(profile)) as browser:
        told = lively(Told())
        with serve_asgi(door(make(told))) as url:
            looker = Looker(browser, url)
            shots = []
            for scheme in ("light", "dark"):
                looker.screen(SIZE[0], height=SIZE[1], scheme=scheme)
                looker.open()
                shots.append(base64.b64encode(looker.picture(whole=False)).decode())
            browser.get("about:blank")
            looker.run(BOTH, *shots)
            (ROOT / "docs" / "dashboard.png").write_bytes(looker.picture(whole=False))


if __name__ == "__main__":
    main()
