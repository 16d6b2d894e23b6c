"""Who is calling, as the app's function says, and what it means that nobody is let in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from flask import Response, current_app, request
from werkzeug.exceptions import HTTPException

from ai_proxy_mw._errors import AppRefused, ConfigurationError, Unauthorized
from ai_proxy_mw._identify import AppAnswer
from ai_proxy_mw._subrequest_answer import Answer, passed_on

if TYPE_CHECKING:
    from ai_proxy_mw._identity import Identity
    from ai_proxy_mw._types import RawHeaders

Ask = Callable[[], "str | Identity | Awaitable[str | Identity | None] | None"]
"""Says in a request context who is calling; sync, or `async def`."""


def login_user_id() -> str | None:
    """Who is signed in by Flask-Login, as `get_id()` of the app's user says; None if nobody."""
    from flask_login import current_user  # noqa: PLC0415 - only for apps that have it

    user_id: str | None = current_user.get_id() if current_user.is_authenticated else None
    return user_id


def check_ask(function: Ask) -> Ask:
    if not callable(function):
        raise ConfigurationError("who is calling: give a function without arguments")
    return function


def ask(function: Ask) -> str | Identity | None:
    found: str | Identity | None = current_app.ensure_sync(function)()
    return found


def refusal_of(error: Exception) -> Exception:
    """What ends a call where code of the app has raised. Faults stay what they are."""
    if not isinstance(error, HTTPException):
        return error
    if error.response is not None:
        return meaning_of(current_app.make_response(error.response))
    if error.code is None:
        return error
    if error.code < 400:  # a redirect
        return Unauthorized()
    text = error.description if isinstance(error.description, str) else error.name
    answer = Answer(error.code, _lines(error.get_headers(request.environ)))
    lines = passed_on(answer, b"", head=True).headers
    # The error's body is ours, and so is what is said of it.
    lines = [line for line in lines if not line[0].startswith(b"content-")]
    return AppRefused(error.code, text, lines)


def meaning_of(response: Response) -> Exception:
    """What ends a call where the app has answered it in the place of the proxy."""
    try:
        if response.status_code < 400:  # the page of the login, or the way to it
            return Unauthorized()
        answer = Answer(response.status_code, _lines(response.get_wsgi_headers(request.environ)))
        for piece in response.iter_encoded():
            answer.add(piece)
            if answer.too_large:
                break
    finally:
        response.close()
    body = answer.body
    if body is None:
        return AppRefused(answer.status, "The app has refused the call.")
    return AppAnswer(passed_on(answer, body, head=request.method == "HEAD"))


def _lines(headers: Iterable[tuple[str, str]]) -> RawHeaders:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
