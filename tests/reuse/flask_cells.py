"""Flask under WSGI: before the app and in a route of it, with its own session and Flask-Login."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

from flask import Flask, g, request, session
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user

from ai_proxy_mw import AIProxy, AIProxyWSGIMiddleware, from_route
from ai_proxy_mw.contrib.flask import flask_identify, login_user_id, proxy_blueprint, proxy_view
from ai_proxy_mw.testing import FakeUpstream
from tests.reuse.cell import SLOW, Cell, Recorder, cors, upstream
from tests.servers import serve_wsgi

current: ContextVar[str | None] = ContextVar("current")
local = threading.local()

Who = Callable[[], str | None]


class User(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    def __init__(self, name: str) -> None:
        self.id = name


def with_session() -> Flask:
    app = Flask("session")
    app.secret_key = "a secret of the tests"

    @app.before_request
    def keep() -> None:
        _keep(session.get("user"))

    @app.post("/login")
    def login() -> str:
        session["user"] = request.args["user"]
        return "welcome"

    return app


def with_flask_login() -> Flask:
    app = Flask("login")
    app.secret_key = "a secret of the tests"
    LoginManager(app).user_loader(User)

    @app.before_request
    def keep() -> None:
        _keep(login_user_id())

    @app.post("/login")
    def login() -> str:
        login_user(User(request.args["user"]))
        return "welcome"

    return app


def session_user() -> str | None:
    return _checked(session.get("user"))


def user_of_flask_login() -> str | None:
    return _checked(login_user_id())


def user_who_must_be_there() -> str | None:
    return _checked(current_user.get_id())


def _keep(user: str | None) -> None:
    g.user = local.user = user
    current.set(user)


def _checked(user: str | None) -> str | None:
    assert g.user == local.user == current.get() == user
    if user == "boom":
        raise RuntimeError("boom")
    if user == "slow":
        time.sleep(SLOW)
    return user


@contextmanager
def before(
    make: Callable[[], Flask], who: Who, fake: FakeUpstream, recorder: Recorder
) -> Iterator[str]:
    app = make()
    proxy = AIProxy(upstream=upstream(fake), identify=flask_identify(app, who), cors=cors())
    app.wsgi_app = AIProxyWSGIMiddleware(  # type: ignore[method-assign]
        app.wsgi_app, proxy=recorder.watch(proxy)
    )
    with serve_wsgi(app) as url:
        yield url


@contextmanager
def blueprint(fake: FakeUpstream, recorder: Recorder) -> Iterator[str]:
    app = with_flask_login()
    proxy = AIProxy(upstream=upstream(fake), identify=from_route, cors=cors())
    inner = proxy_blueprint(
        recorder.watch(proxy), identify=user_who_must_be_there, decorators=[login_required]
    )
    app.register_blueprint(inner)
    with serve_wsgi(app) as url:
        yield url


@contextmanager
def view(fake: FakeUpstream, recorder: Recorder) -> Iterator[str]:
    app = with_session()
    proxy = AIProxy(upstream=upstream(fake), identify=from_route, cors=cors())
    app.add_url_rule(
        "/v1/<path:path>", view_func=proxy_view(recorder.watch(proxy), identify=session_user)
    )
    with serve_wsgi(app) as url:
        yield url


CELLS = [
    Cell("flask-identify-session", partial(before, with_session, session_user)),
    Cell("flask-identify-login", partial(before, with_flask_login, user_of_flask_login)),
    Cell("flask-blueprint-login-required", blueprint),
    Cell("flask-view-session", view),
]
