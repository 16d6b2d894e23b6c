"""A Flask app with the proxy that keeps answers in it."""

from __future__ import annotations

from flask import Flask

from ai_proxy_mw import AIProxyWSGIMiddleware
from tests.apps.cached import cached_proxy, worker

app = Flask(__name__)
app.get("/worker")(worker)
app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, proxy=cached_proxy())  # type: ignore[method-assign]
