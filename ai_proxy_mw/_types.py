"""The aliases that the other rooms share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response

RawHeaders = list[tuple[bytes, bytes]]
"""Header lines as they go over the wire; names are lower case."""

Handler = Callable[["Request"], Awaitable["Response"]]
Stage = Callable[["Request", Handler], Awaitable["Response"]]

# Starlette's shape. An ASGI app typed by asgiref or by Django is a different, invariant type,
# so what we are given is taken as `Any` arguments and what we call is typed by this.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
