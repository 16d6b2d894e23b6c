"""Asks the app's own function about Django's request, and takes Django's exceptions as answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core.exceptions import (
    BadRequest,
    ImproperlyConfigured,
    PermissionDenied,
    SuspiciousOperation,
)
from django.db import close_old_connections
from django.http import Http404, HttpRequest

from ai_proxy_mw._errors import AppRefused, ConfigurationError, Forbidden
from ai_proxy_mw._identify import from_route
from ai_proxy_mw._identity import Identity

Identify = Callable[[HttpRequest], "str | Identity | Awaitable[str | Identity | None] | None"]


class Asked(NamedTuple):
    """Who is calling, or why nobody is let in."""

    identified: str | Identity | None = None
    refusal: Exception | None = None


def user_id(request: HttpRequest) -> str | None:
    """The primary key of `request.user` as text; None if nobody is signed in."""
    user = getattr(request, "user", None)
    if user is None:
        raise ImproperlyConfigured(
            "there is no request.user: put AuthenticationMiddleware into settings.MIDDLEWARE, "
            "before ProxyMiddleware"
        )
    return str(user.pk) if user.is_authenticated else None


def ask(identify: Identify, request: HttpRequest) -> Asked:
    """Ask in this thread. Whatever the function raises is a refusal."""
    found: Any
    try:
        found = identify(request)
        if isawaitable(found):
            found = async_to_sync(_awaited)(found)
        return Asked(found)
    except Exception as error:  # noqa: BLE001 - the corridor raises it again
        return Asked(refusal=_told(error))
    finally:
        # The answer may take minutes, for which nobody needs the connection to the database.
        close_old_connections()


async def aask(identify: Identify, request: HttpRequest) -> Asked:
    """Ask where an event loop runs: a sync function in the thread that Django has for the call."""
    if not _is_async(identify):
        return await sync_to_async(ask, thread_sensitive=True)(identify, request)
    found: Any = identify(request)
    try:
        return Asked(await found)
    except Exception as error:  # noqa: BLE001 - the corridor raises it again
        return Asked(refusal=_told(error))


def check_identify(identify: Identify) -> Identify:
    """The function itself; raises ConfigurationError for what cannot be asked."""
    of_corridor: Any = from_route
    if not callable(identify) or identify is of_corridor:
        raise ConfigurationError(
            f"identify={identify!r}: give a function of Django's request, sync or async"
        )
    return identify


async def _awaited(found: Awaitable[Any]) -> Any:
    return await found


def _is_async(function: Any) -> bool:
    return iscoroutinefunction(function) or iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - whether its instances are awaited
    )


def _told(error: Exception) -> Exception:
    """What Django would make a page of, as a refusal with the same status."""
    if isinstance(error, PermissionDenied):
        return AppRefused(403, str(error)) if str(error) else Forbidden()
    if isinstance(error, Http404):  # its text names the app's own models
        return AppRefused(404, "There is nothing here for you.")
    if isinstance(error, (BadRequest, SuspiciousOperation)):
        return AppRefused(400, "The request cannot be accepted.")
    return error
