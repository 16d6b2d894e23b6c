"""A Flask app with the proxy as `PROXY_OPTIONS` says, for pages on other origins."""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask

from ai_proxy_mw import CORS, AIProxy, AIProxyWSGIMiddleware, Request


def who(request: Request) -> str | None:
    if request.cookies.get("user") == "broken":
        raise RuntimeError("the hook is broken")
    return request.cookies.get("user")


def make_app() -> Flask:
    options: dict[str, Any] = json.loads(os.environ["PROXY_OPTIONS"])
    if options["cors"] is not None:
        options["cors"] = CORS(**options["cors"])
    if not options["anonymous"]:
        options["identify"] = who
    app = Flask("house")
    app.wsgi_app = AIProxyWSGIMiddleware(  # type: ignore[method-assign]
        app.wsgi_app, proxy=AIProxy(**options)
    )
    return app
