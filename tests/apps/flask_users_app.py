"""A Flask app with Flask-Login and the proxy twice: before the app, and inside it as a route.

`POST /login?user=NAME` signs in. A cookie `user` does so as well, for browsers that are told one.
Pages of `PAGE_ORIGIN` may call.
"""

from __future__ import annotations

import os

from flask import Flask, Request, request
from flask_login import LoginManager, UserMixin, login_required, login_user

from ai_proxy_mw import CORS, AIProxy, AIProxyWSGIMiddleware, from_route
from ai_proxy_mw.contrib.flask import flask_identify, login_user_id, proxy_blueprint

app = Flask(__name__)
app.secret_key = "a secret of the tests"
logins = LoginManager(app)
cors = CORS(allow_origins=[os.environ["PAGE_ORIGIN"]], allow_credentials=True)


class User(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    def __init__(self, name: str) -> None:
        self.id = name


logins.user_loader(User)


@logins.request_loader  # type: ignore[untyped-decorator]
def by_cookie(call: Request) -> User | None:
    name = call.cookies.get("user")
    return None if name is None else User(name)


@app.post("/login")
def login() -> str:
    login_user(User(request.args["user"]))
    return "welcome"


before = AIProxy.from_env(
    identify=flask_identify(app, login_user_id), prefix="/before/v1", cors=cors
)
inside = AIProxy.from_env(identify=from_route, prefix="/inside/v1", cors=cors)
app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, proxy=before)  # type: ignore[method-assign]
app.register_blueprint(proxy_blueprint(inside, identify=login_user_id, decorators=[login_required]))
