"""A Flask app with a login, a chat page, and an OpenAI-compatible /v1 for its users."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path

from flask import Flask, Request, Response, abort, redirect, render_template, request, session
from flask.typing import ResponseReturnValue
from werkzeug.security import check_password_hash

import ai_proxy_mw
from ai_proxy_mw import AIProxy, AIProxyWSGIMiddleware, Forbidden

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


def refuse_other_sites(origin: str | None) -> None:
    """Refuse what another site's page sends with our user's cookie (cross-site request forgery).

    `origin` is the Sec-Fetch-Site header, which pages cannot forge. The cookie's SameSite=Lax
    stands behind it for browsers that do not send the header. Clients that are no browsers do
    not send it either; nobody makes those call against their will.
    """
    if origin not in (None, "same-origin", "none"):
        raise Forbidden("Calls from other sites are not allowed.")


def current_user(call: ai_proxy_mw.Request) -> str | None:
    """Who is calling the proxy: the user that this app's own session names."""
    refuse_other_sites(call.headers.get("sec-fetch-site"))
    assert call.environ is not None  # a WSGI call has one
    # The proxy stands before Flask, where there is no request context yet.
    opened = app.session_interface.open_session(app, Request(call.environ))
    return known_user(opened.get("user")) if opened is not None else None


def known_user(name: object) -> str | None:
    """The user, unless removed since the login."""
    return name if isinstance(name, str) and name in USERS else None


proxy = AIProxy.from_env(
    # Offline until AI_PROXY_UPSTREAM names a provider; an empty variable counts as unset.
    {"AI_PROXY_UPSTREAM": "fake"} | {name: v for name, v in os.environ.items() if v.strip()},
    identify=current_user,
)
app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, proxy=proxy)  # type: ignore[method-assign]


@app.before_request
def refuse_forged_forms() -> None:
    if request.method != "POST":
        return
    try:
        refuse_other_sites(request.headers.get("sec-fetch-site"))
    except Forbidden as error:
        abort(403, error.message)


@app.after_request
def add_page_headers(response: Response) -> Response:
    if response.mimetype == "text/html":
        response.headers.update(PAGE_HEADERS)
    return response


@app.get("/")
def chat() -> ResponseReturnValue:
    user = known_user(session.get("user"))
    if user is None:
        return redirect("login", 303)
    return render_template(
        "chat.html",
        user=user,
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
    session["user"] = user
    session.permanent = True  # ends after PERMANENT_SESSION_LIFETIME
    return redirect(".", 303)


@app.post("/logout")
def logout() -> ResponseReturnValue:
    session.clear()
    return redirect("login", 303)
