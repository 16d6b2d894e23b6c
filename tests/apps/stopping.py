"""A proxy that gives the calls under way one second when its server stops."""

from __future__ import annotations

import os

from flask import Flask

from ai_proxy_mw import AIProxy, AIProxyMiddleware, AIProxyWSGIMiddleware

proxy = AIProxy(upstream=os.environ["STOPPING_UPSTREAM"], anonymous=True, drain=1)

asgi_app = AIProxyMiddleware(proxy=proxy)

wsgi_app = Flask(__name__)
wsgi_app.wsgi_app = AIProxyWSGIMiddleware(wsgi_app.wsgi_app, proxy=proxy)  # type: ignore[method-assign]
