"""A WSGI app with the proxy of the ledger in it, whose workers count together on disk."""

from __future__ import annotations

import os

from flask import Flask

from ai_proxy_mw import AIProxyWSGIMiddleware, DiskCache
from tests.ledger import mixed_proxy

app = Flask(__name__)
proxy = mixed_proxy(os.environ["COUNTED_UPSTREAM"], stats=DiskCache(os.environ["COUNTED_FOLDER"]))


@app.get("/worker")
def worker() -> str:
    return str(os.getpid())


app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, proxy=proxy)  # type: ignore[method-assign]
