"""A Flask app with the proxy in it."""

from flask import Flask

from ai_proxy_mw import AIProxy, AIProxyWSGIMiddleware

app = Flask(__name__)


@app.get("/")
def home() -> dict[str, str]:
    return {"app": "flask"}


app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, proxy=AIProxy.from_env())  # type: ignore[method-assign]
