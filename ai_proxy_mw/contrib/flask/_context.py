"""Asks an app who is calling before the call has reached it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, has_app_context, has_request_context, request
from werkzeug.exceptions import HTTPException, SecurityError

from ai_proxy_mw._errors import ProxyError
from ai_proxy_mw._identify import AppAnswer
from ai_proxy_mw.contrib.flask._asking import Ask, ask, check_ask, meaning_of, refusal_of

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._identify import Identify
    from ai_proxy_mw._identity import Identity

_OF_THE_BODY = frozenset(
    {
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "HTTP_CONTENT_ENCODING",
        "HTTP_EXPECT",
        "HTTP_TRANSFER_ENCODING",
    }
)
_OF_ANOTHER_REQUEST = ("flask.", "werkzeug.")


def flask_identify(app: Flask, fn: Ask) -> Identify:
    """`identify=` for a proxy whose middleware stands before a Flask app.

    `fn`, without arguments, sync or async, runs in a request context of the app, after the app's
    `before_request` functions: `session`, `g` and Flask-Login's `current_user` are there. All of
    them see the call without its body. What they change in the session is not saved.

    What a `before_request` function answers with a status of 400 or more is the caller's answer;
    any other answer of it means that nobody is signed in. An `HTTPException` is told in the shape
    of our errors. Raises ConfigurationError.
    """
    check_ask(fn)

    def identify(call: Request) -> str | Identity | None:
        if call.environ is None:
            raise RuntimeError(
                "flask_identify is for AIProxyWSGIMiddleware: the call has no environ"
            )
        if _is_inside(app, call.environ):
            return ask(fn)
        with _context(app, call.environ):
            # What is refused by intention is no fault that teardown functions should be told of.
            try:
                return _asked(app, fn)
            except (HTTPException, ProxyError, AppAnswer) as error:
                refusal = refusal_of(error)
        raise refusal

    return identify


def _asked(app: Flask, fn: Ask) -> str | Identity | None:
    answer = app.preprocess_request()
    if answer is not None:
        raise meaning_of(app.make_response(answer))
    if isinstance(request.routing_exception, SecurityError):
        raise request.routing_exception  # a host that is not in TRUSTED_HOSTS
    return ask(fn)


def _is_inside(app: Flask, environ: dict[str, Any]) -> bool:
    """Whether a view of the app is answering this call: one that gives the middleware back."""
    # Werkzeug hands on a copy of the environ, which names the request that it was made for.
    return (
        has_request_context() and request == environ.get("werkzeug.request") and current_app == app
    )


@contextmanager
def _context(app: Flask, environ: dict[str, Any]) -> Iterator[None]:
    """A request context for the call, with a `g` of its own whatever the thread has open."""
    with ExitStack() as stack:
        if has_app_context():
            stack.enter_context(app.app_context())
        context = app.request_context(_without_body(environ))
        stack.push(context)  # first, so that it is popped also if the session cannot be opened
        context.push()
        yield


def _without_body(environ: dict[str, Any]) -> dict[str, Any]:
    """A copy for the app: the body is for the upstream."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _OF_THE_BODY and not name.startswith(_OF_ANOTHER_REQUEST)
    }
    return kept | {"wsgi.input": BytesIO(), "wsgi.input_terminated": True}
