"""What the app's own code raises instead of saying who is calling, in the corridor's words."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ai_proxy_mw._errors import AppRefused, ProxyError, Unauthorized
from ai_proxy_mw._identify import AppAnswer
from ai_proxy_mw._subrequest_answer import Answer, passed_on

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

Handler = Callable[[Any, Any], Any]
"""One of the app's exception handlers."""

_SHOWN = 3
"""How many faults of a call are told."""


class BodyIsStreamed(HTTPException):
    """A dependency asks for the body. Of other exceptions FastAPI would say that it is broken."""

    def __init__(self) -> None:
        super().__init__(500, "a dependency reads the body of a call to the proxy: it is not held")


async def refusal_of(error: Exception, request: Request) -> Exception:
    """What ends the call. Faults stay what they are, to be logged and told as nothing but a 500.

    Where the app has a handler for an exception of its own, that one says what is answered.
    """
    if isinstance(error, BodyIsStreamed):
        return RuntimeError(error.detail)
    if isinstance(error, HTTPException):
        return told(error)
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, ProxyError | AppAnswer):
        return error
    handler = _handler_of(error, request)
    return error if handler is None else await _handled(handler, error, request)


def told(error: HTTPException) -> Exception:
    """An HTTPException in our shape. A way to a login page means that nobody is signed in."""
    if error.status_code < 400:
        return Unauthorized()
    detail: Any = error.detail
    text = detail if isinstance(detail, str) else json.dumps(detail, default=str)
    headers = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in (error.headers or {}).items()
    ]
    return AppRefused(error.status_code, text, about_the_call(headers))


def about_the_call(headers: RawHeaders) -> RawHeaders:
    """The lines that hold whatever the body is, which is ours and not the app's."""
    if not headers:
        return []
    lines = passed_on(Answer(200, headers), b"", head=True).headers
    return [line for line in lines if not line[0].startswith(b"content-")]


def _invalid(error: RequestValidationError) -> Exception:
    """Names what is wrong, and not what was sent, which may be a secret."""
    faults = [
        f"{'.'.join(map(str, fault['loc']))} ({fault['type']})" for fault in error.errors()[:_SHOWN]
    ]
    return AppRefused(422, f"What this app asks of its callers is not there: {', '.join(faults)}.")


# -- the app's own exception handlers --------------------------------------------------------


def _handler_of(error: Exception, request: Request) -> Handler | None:
    """As Starlette finds it, but for the one of all faults, which has nothing to tell a caller."""
    handlers: dict[Any, Handler] = request.app.exception_handlers
    kinds = takewhile(lambda kind: kind is not Exception, type(error).__mro__)
    return next((handlers[kind] for kind in kinds if kind in handlers), None)


async def _handled(handler: Handler, error: Exception, request: Request) -> Exception:
    try:
        if inspect.iscoroutinefunction(handler):
            response = await handler(request, error)
        else:
            response = await run_in_threadpool(handler, request, error)
        return _meaning(response, request)
    except Exception as fault:  # noqa: BLE001 - a fault of the app, to be logged as one
        return fault


def _meaning(response: Response, request: Request) -> Exception:
    status = response.status_code
    if status < 400:  # the login's page, or the way to it
        return Unauthorized()
    body = getattr(response, "body", None)
    if body is None:  # a stream or a file
        return AppRefused(status, "The app has refused the call.")
    answer = Answer(status, response.raw_headers)
    return AppAnswer(passed_on(answer, bytes(body), head=request.method == "HEAD"))
