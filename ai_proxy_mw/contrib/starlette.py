"""Starlette and FastAPI: the user that the app's own middleware has found.

Both functions are for a proxy whose middleware is *inside* the one that they read, so that one is
added after it: Starlette puts what is added last outermost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ai_proxy_mw._errors import ConfigurationError

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._identify import AsyncIdentify
    from ai_proxy_mw._identity import Identity


def authenticated_user(
    *, subject: Callable[[Any], str | Identity | None] | None = None
) -> AsyncIdentify:
    """`identify=` for an app with Starlette's `AuthenticationMiddleware`: `request.user`.

    subject: makes the subject or the `Identity` of a user who is authenticated; it runs in the
        event loop, so it must be quick. Without it, the user's `identity` is taken, or the
        `username` where there is none, but never the `display_name`, which two users may share.

    A user who is not authenticated is nobody. Raises ConfigurationError.
    """
    if subject is not None and not callable(subject):
        raise ConfigurationError(f"subject={subject!r}: write subject=lambda user: str(user.id)")
    subject_of = subject or _identity

    async def identify(request: Request) -> str | Identity | None:
        user = _from_scope(request, "user", "AuthenticationMiddleware")
        return subject_of(user) if _is_authenticated(user) else None

    return identify


def session_user(key: str = "user_id") -> AsyncIdentify:
    """`identify=` for an app whose login keeps the user's id in Starlette's session.

    key: the name in `request.session`. Text is the subject as it is and a whole number as text.
        No such name, and None, is nobody; other values are a TypeError, for nobody can tell whom
        they mean.

    Raises ConfigurationError.
    """
    if not isinstance(key, str) or not key:
        raise ConfigurationError(f"session_user({key!r}): write the name as text")

    async def identify(request: Request) -> str | None:
        user = _from_scope(request, "session", "SessionMiddleware").get(key)
        if user is None or isinstance(user, str):
            return user
        if isinstance(user, int) and not isinstance(user, bool):
            return str(user)
        raise TypeError(
            f"session[{key!r}] is {type(user).__name__}: keep the user's id there, as text or int"
        )

    return identify


def _from_scope(request: Request, name: str, middleware: str) -> Any:
    if request.scope is None or name not in request.scope:
        raise RuntimeError(
            f"there is no {name!r} in the scope: {middleware} must be around the proxy, so write "
            f"app.add_middleware({middleware}, ...) after app.add_middleware(AIProxyMiddleware, "
            "...)"
        )
    return request.scope[name]


def _is_authenticated(user: Any) -> bool:
    state = user is not None and user.is_authenticated
    if not isinstance(state, bool):
        # A method, say, which is true whatever it would return.
        raise TypeError(f"{type(user).__name__}.is_authenticated must be a property, True or False")
    return state


def _identity(user: Any) -> str:
    try:
        identity = user.identity
    except (AttributeError, NotImplementedError):
        # Starlette's SimpleUser, whose older versions have the name only there.
        identity = getattr(user, "username", None)
    if not isinstance(identity, str):
        raise TypeError(
            f"{type(user).__name__} has no identity that is text: "
            "give authenticated_user(subject=lambda user: str(user.id))"
        )
    return identity
