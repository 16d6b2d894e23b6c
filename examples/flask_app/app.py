"""A Flask app with a login, a chat page, and an OpenAI-compatible /v1 for its users."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path

from flask import Flask, Response, abort, redirect, render_template, request, session
from flask.typing import ResponseReturnValue
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from werkzeug.security import check_password_hash

from ai_proxy_mw import AIProxy, AIProxyWSGIMiddleware
from ai_proxy_mw.contrib.flask import flask_identify, login_user_id

SHARED = Path(__file__).resolve().parent.parent  # the FastAPI example shows the same page

# Demo users: replace them by those of your app. The passwords are "wonderland" and "builder".
USERS = {
    "alice": "scrypt:32768:8:1$OxMslCxaHMVoKXvP$66f11f98be5a45b5e930f0d6154681fef0f6490efed15c3a"
    "1cb22266dca7347aeedf35e7bc6cc9551433560c2952c49c71f5445d9d64b574634ba5323cdefef7",
    "bob": "scrypt:32768:8:1$bIpEBXuKA9YK666e$1c97146697ea423b282df664577b7927bdb2ff24d5dc7468"
    "c011fa8220038b6987e76ccfe06f5056f89f09910f42b5df930540f46b70f91f89bf0d3d43fd30aa",
}
# An unknown user costs the same time as a known one, so that the time does not tell who exists.
NOBODY = "scrypt:32768:8:1$nobody$" + "0" * 128

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

app = Flask(__name__, static_folder=SHARED / "static", template_folder=str(SHARED / "templates"))
app.config.update(
    # A random secret serves one process until it stops. Several workers need a common one.
    SECRET_KEY=os.environ.get("APP_SECRET") or secrets.token_urlsafe(32),
    SESSION_COOKIE_HTTPONLY=True,
    SESSION_COOKIE_SAMESITE="Lax",
    SESSION_COOKIE_SECURE=os.environ.get("APP_HTTPS") == "1",
    PERMANENT_SESSION_LIFETIME=timedelta(hours=8),
    MAX_CONTENT_LENGTH=4096,  # of this app's forms; AI_PROXY_MAX_BODY is the proxy's
)


class User(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    def __init__(self, name: str) -> None:
        self.id = name


def load_user(name: str) -> User | None:
    """The user of a session, unless removed since the login."""
    return User(name) if name in USERS else None


def to_the_login() -> ResponseReturnValue:
    return redirect("login", 303)


logins = LoginManager(app)
logins.user_loader(load_user)
logins.unauthorized_handler(to_the_login)

proxy = AIProxy.from_env(
    # Offline until AI_PROXY_UPSTREAM names a provider; an empty variable counts as unset.
    {"AI_PROXY_UPSTREAM": "fake"} | {name: v for name, v in os.environ.items() if v.strip()},
    identify=flask_identify(app, login_user_id),
)
app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, proxy=proxy)  # type: ignore[method-assign]


@app.before_request
def refuse_forged_forms() -> None:
    """Refuse forms that another site's page sends (cross-site request forgery).

    Sec-Fetch-Site is a header that pages cannot forge. The cookie's SameSite=Lax stands behind
    it for browsers that do not send the header.
    """
    site = request.headers.get("sec-fetch-site", "none")
    if request.method == "POST" and site not in ("same-origin", "none"):
        abort(403, "Calls from other sites are not allowed.")


@app.after_request
def add_page_headers(response: Response) -> Response:
    if response.mimetype == "text/html":
        response.headers.update(PAGE_HEADERS)
    return response


@app.get("/")
@login_required  # type: ignore[untyped-decorator]
def chat() -> ResponseReturnValue:
    return render_template(
        "chat.html",
        user=current_user.id,
        model=os.environ.get("APP_MODEL") or "fake-1",
        base_urls=proxy.prefix.lstrip("/"),
    )


@app.get("/login")
def login_page() -> ResponseReturnValue:
    return render_template("login.html")


@app.post("/login")
def login() -> ResponseReturnValue:
    user, password = request.form.get("user", ""), request.form.get("password", "")
    if not check_password_hash(USERS.get(user, NOBODY), password) or user not in USERS:
        return render_template("login.html", error="This user and password do not fit."), 403
    session.clear()
    login_user(User(user))
    session.permanent = True  # ends after PERMANENT_SESSION_LIFETIME
    return redirect(".", 303)


@app.post("/logout")
def logout() -> ResponseReturnValue:
    logout_user()
    session.clear()
    return redirect("login", 303)
