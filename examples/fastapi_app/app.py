"""A FastAPI app with a login, a chat page, and an OpenAI-compatible /v1 for its users."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from starlette.middleware.sessions import SessionMiddleware

from ai_proxy_mw import AIProxy, from_route, hash_api_key
from ai_proxy_mw.contrib.fastapi import proxy_router

SHARED = Path(__file__).resolve().parent.parent  # the Flask example shows the same page

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
FORM_LIMIT = 4096  # bytes
SESSION_SECONDS = 8 * 60 * 60

# Each look at a password takes 32 MiB: a flood of logins must not take all the memory.
passwords_at_once = asyncio.Semaphore(4)
templates = Jinja2Templates(SHARED / "templates")


def issued_tokens(text: str) -> list[tuple[str, str]]:
    """Users and the hashes of their tokens, from `alice=sha256:...,bob=sha256:...`."""
    pairs = [item.strip().partition("=") for item in text.split(",") if item.strip()]
    if not all(re.fullmatch("sha256:[0-9a-f]{64}", stored) for _, _, stored in pairs):
        raise ValueError("APP_TOKENS: write USER=sha256:..., as hash_api_key gives it")
    return [(user, stored) for user, _, stored in pairs]


TOKENS = issued_tokens(os.environ.get("APP_TOKENS", ""))
bearer = HTTPBearer(auto_error=False, description="A token that this app has issued, for scripts")


def owner_of(token: str) -> str | None:
    """Whose token it is. All are compared, each in constant time."""
    presented = hash_api_key(token)
    owners = [user for user, stored in TOKENS if hmac.compare_digest(presented, stored)]
    return owners[0] if owners else None


async def current_user(
    request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> str | None:
    """The user of a script's token, or else the one whom the session names."""
    if sent is not None:
        return known_user(owner_of(sent.credentials))
    return known_user(request.session.get("user"))


def known_user(name: object) -> str | None:
    """The user, unless removed since the login."""
    return name if isinstance(name, str) and name in USERS else None


def is_password(stored: str, password: str) -> bool:
    method, salt, digest = stored.split("$")
    _, n, r, p = method.split(":")
    found = hashlib.scrypt(
        password.encode(), salt=salt.encode(), n=int(n), r=int(r), p=int(p), maxmem=2**26
    )
    return hmac.compare_digest(found.hex(), digest)


proxy = AIProxy.from_env(
    # Offline until AI_PROXY_UPSTREAM names a provider; an empty variable counts as unset.
    {"AI_PROXY_UPSTREAM": "fake"} | {name: v for name, v in os.environ.items() if v.strip()},
    identify=from_route,  # the routes below ask current_user
)
app = FastAPI(openapi_url=None)
app.mount("/static", StaticFiles(directory=SHARED / "static"))
app.include_router(proxy_router(proxy, identify=current_user))
app.add_middleware(
    SessionMiddleware,
    # A random secret serves one process until it stops. Several workers need a common one.
    secret_key=os.environ.get("APP_SECRET") or secrets.token_urlsafe(32),
    same_site="lax",
    https_only=os.environ.get("APP_HTTPS") == "1",
    max_age=SESSION_SECONDS,
)


def page(request: Request, name: str, status: int = 200, **values: str) -> Response:
    return templates.TemplateResponse(request, name, values, status, PAGE_HEADERS)


def refuse_other_sites(request: Request) -> None:
    """Refuse what another site's page sends with our user's cookie (cross-site request forgery).

    Pages cannot forge Sec-Fetch-Site. The cookie's SameSite=Lax stands behind it for browsers
    that do not send it. The proxy does the same for the calls to it.
    """
    if request.headers.get("sec-fetch-site") not in (None, "same-origin", "none"):
        raise HTTPException(403, "Forms of other sites are not allowed.")


async def form_fields(request: Request) -> dict[str, str]:
    """The fields of a form that our own page has sent."""
    refuse_other_sites(request)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_LIMIT:
            raise HTTPException(413)
    fields = parse_qs(body.decode("utf-8", "replace"))
    return {name: values[0] for name, values in fields.items()}


@app.get("/")
async def chat(request: Request) -> Response:
    user = known_user(request.session.get("user"))
    if user is None:
        return RedirectResponse("login", 303)
    return page(
        request,
        "chat.html",
        user=user,
        model=os.environ.get("APP_MODEL") or "fake-1",
        base_urls=proxy.prefix.lstrip("/"),
    )


@app.get("/login")
async def login_page(request: Request) -> Response:
    return page(request, "login.html")


@app.post("/login")
async def login(request: Request) -> Response:
    fields = await form_fields(request)
    user, password = fields.get("user", ""), fields.get("password", "")
    async with passwords_at_once:
        fits = await asyncio.to_thread(is_password, USERS.get(user, NOBODY), password)
    if not fits or user not in USERS:
        return page(request, "login.html", 403, error="This user and password do not fit.")
    request.session.clear()
    request.session["user"] = user
    return RedirectResponse(".", 303)


@app.post("/logout")
async def logout(request: Request) -> Response:
    await form_fields(request)
    request.session.clear()
    return RedirectResponse("login", 303)
