"""The router: a route for each endpoint, and one for everything else below the prefix."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Response, params
from fastapi.routing import APIRoute

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.asgi import RouteDoor
from ai_proxy_mw.contrib.fastapi._docs import named, said_of
from ai_proxy_mw.contrib.fastapi._route import Desk, Path, Rest, route_class

if TYPE_CHECKING:
    from enum import Enum

    from fastapi.dependencies.models import Dependant

    from ai_proxy_mw._identity import Identity
    from ai_proxy_mw._proxy import AIProxy

# Asked most often, so looked at first: routes are tried one after the other.
_FIRST = ("POST /chat/completions", "POST /responses", "POST /messages", "POST /embeddings")


def proxy_router(
    proxy: AIProxy,
    *,
    identify: Any,
    subject: Callable[[Any], str | Identity | None] | None = None,
    tags: Sequence[str | Enum] = ("ai",),
    include_in_schema: bool = True,
) -> APIRouter:
    """A router for `app.include_router`: the proxy's endpoints below its prefix.

    identify: a dependency of the app, as in `Depends(...)`, or `Depends(...)` or `Security(...)`
        itself. Its value is the subject as text, an `Identity`, or None for nobody. It must not
        read the body, which is not held.
    subject: makes the subject or the `Identity` of any other value, such as a user of the app;
        it runs in the event loop, so it must be quick. It is not asked about None.
    tags: under which tags the endpoints are in the app's OpenAPI.
    include_in_schema: False leaves them out of it.

    The proxy is made with `identify=from_route`. The router's lifespan closes it, which is that
    of the app that includes the router; an app that is mounted in another has none.
    Raises ConfigurationError.
    """
    door = RouteDoor(proxy)
    if subject is not None and not callable(subject):
        raise ConfigurationError(f"subject={subject!r}: write subject=lambda user: str(user.id)")
    depends = _depends(identify)
    desks: dict[Callable[..., Any], Desk] = {}
    router = APIRouter(
        route_class=route_class(desks),
        lifespan=_closing(proxy),
        tags=list(tags),
        include_in_schema=include_in_schema,
    )
    endpoints = sorted(proxy.endpoints.written, key=lambda endpoint: endpoint not in _FIRST)
    heads = [f"HEAD {path}" for method, path in map(str.split, endpoints) if method == "GET"]
    for endpoint in (*endpoints, *heads):
        _add(router, desks, Desk(door, Path(endpoint), subject), depends, endpoint)
    # OPTIONS, other methods and other paths: answered before anybody is asked who is calling.
    rest: Any = Rest(door)
    router.add_route(proxy.prefix, rest, name="ai_proxy", include_in_schema=False)
    router.add_route(
        f"{proxy.prefix}/{{{Rest.PARAMETER}:path}}", rest, name="ai_proxy", include_in_schema=False
    )
    return router


def _add(
    router: APIRouter,
    desks: dict[Callable[..., Any], Desk],
    desk: Desk,
    depends: params.Depends,
    endpoint: str,
) -> None:
    method, path = endpoint.split()
    relay = desk.endpoint(depends)
    relay.__name__ = relay.__qualname__ = named(method, path)
    desks[relay] = desk
    router.add_api_route(
        desk.door.proxy.prefix + desk.path.template,
        relay,
        methods=[method],
        response_class=Response,
        response_model=None,
        include_in_schema=method != "HEAD",
        **said_of(endpoint, desk.path.parameters),
    )
    route = router.routes[-1]
    assert isinstance(route, APIRoute)
    if route.body_field is not None:
        raise ConfigurationError(
            "identify= depends on the body of the call, which is not held: identify the caller "
            "by the headers, the cookies, the path or the query"
        )
    if _takes(route.dependant, desk.path.parameters):
        raise ConfigurationError(
            f"identify= has a parameter with the name of one of {desk.path.parameters}, which "
            "are parts of the endpoints' paths: give it another name"
        )


def _takes(dependant: Dependant, parameters: Sequence[str]) -> bool:
    return any(field.alias in parameters for field in dependant.path_params) or any(
        _takes(dependency, parameters) for dependency in dependant.dependencies
    )


def _depends(identify: Any) -> params.Depends:
    dependency = identify.dependency if isinstance(identify, params.Depends) else identify
    if not callable(dependency):
        raise ConfigurationError("identify=: give a dependency, as you would write in Depends(...)")
    if isinstance(identify, params.Depends):
        return identify
    depends: params.Depends = Depends(identify)
    return depends


def _closing(proxy: AIProxy) -> Any:
    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        await proxy.aclose()

    return lifespan
