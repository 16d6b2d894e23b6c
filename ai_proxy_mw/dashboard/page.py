"""The page, made once of the files beside this one, and what it may do in a browser."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_SCRIPTS = ("words", "nodes", "chart", "tables", "panels", "main")
"""The parts of the one script, in their order."""


class Page(NamedTuple):
    """policy: a Content-Security-Policy that lets just this style and these scripts work."""

    html: bytes
    policy: bytes


@cache
def page() -> Page:
    style = _read("page.css")
    first = _read("theme.js")  # before anything is drawn
    script = '"use strict";\n' + "".join(_read(f"{name}.js") for name in _SCRIPTS)
    html = _read("page.html")
    for mark, text in (("STYLE", style), ("THEME", first), ("SCRIPT", script)):
        html = html.replace(f"/*{mark}*/", text)
    return Page(html.encode(), _policy(style, first, script))


def _read(name: str) -> str:
    return (files("ai_proxy_mw.dashboard") / "page" / name).read_text("utf-8")


def _policy(style: str, *scripts: str) -> bytes:
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            f"style-src {_hash(style)}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            # Text becomes markup nowhere: the browser itself refuses it.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    ).encode()


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
