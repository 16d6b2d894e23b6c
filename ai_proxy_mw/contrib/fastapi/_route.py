"""A route: the app's dependency says who is calling, and the corridor does the rest."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from ai_proxy_mw._identity import Identity
from ai_proxy_mw.contrib.fastapi._refusals import BodyIsStreamed, about_the_call, refusal_of, told

if TYPE_CHECKING:
    from fastapi import params

    from ai_proxy_mw._types import Message, RawHeaders, Receive, Scope, Send
    from ai_proxy_mw.asgi import RouteDoor

RouteHandler = Callable[[Request], Coroutine[Any, Any, Response]]


class Path:
    """The path of an endpoint, as a template of Starlette and filled in again."""

    def __init__(self, endpoint: str) -> None:
        self.parameters: list[str] = []
        self.template = re.sub(r"\{id(\.\.\.)?\}", self._parameter, endpoint.split()[1])
        self._format = self.template.replace(":path}", "}")

    def _parameter(self, found: re.Match[str]) -> str:
        number = len(self.parameters) + 1
        name = f"object_id_{number}" if self.parameters else "object_id"
        self.parameters.append(name)
        return f"{{{name}:path}}" if found[1] else f"{{{name}}}"

    def of(self, scope: Scope) -> str:
        """What follows the prefix, wherever the router is included and the app mounted."""
        return self._format.format_map(scope["path_params"])


class Desk:
    """Where the calls of one route are handed over."""

    def __init__(
        self, door: RouteDoor, path: Path, subject: Callable[[Any], str | Identity | None] | None
    ) -> None:
        self.door = door
        self.path = path
        self._subject = subject

    def endpoint(self, depends: params.Depends) -> Callable[..., Awaitable[Response]]:
        """The route's endpoint, a function of its own for FastAPI to look at."""

        async def relay(response: Response, user: Any = depends) -> Response:
            identified = self._identified(user)
            return _HandedOver(self, about_the_call(response.headers.raw), identified=identified)

        return relay

    def guarding(self, handler: RouteHandler) -> RouteHandler:
        """The route's handler, whose exceptions end the call in the corridor."""

        async def guarded(request: Request) -> Response:
            try:
                return await handler(Request(request.scope, _sealed))
            except Exception as error:  # noqa: BLE001 - the corridor tells of it, and logs faults
                return _HandedOver(self, refusal=await refusal_of(error, request))

        return guarded

    def _identified(self, user: Any) -> str | Identity | None:
        if user is None:
            return None
        found = user if self._subject is None else self._subject(user)
        if found is None or isinstance(found, str | Identity):
            return found
        source = "identify=" if self._subject is None else "subject="
        raise TypeError(
            f"{source} gave {type(found).__name__}, and not text, Identity or None: "
            "write proxy_router(..., subject=lambda user: str(user.id))"
        )


class _HandedOver(Response):
    """Answers with what the corridor answers, piece by piece.

    `further` are header lines that dependencies have put on their `response` parameter.
    """

    def __init__(
        self,
        desk: Desk,
        further: RawHeaders | None = None,
        *,
        identified: str | Identity | None = None,
        refusal: Exception | None = None,
    ) -> None:
        super().__init__()
        self._desk = desk
        self._further = further
        self._identified = identified
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._desk.door.serve(
            scope,
            _telling(receive),
            _adding(self._further, send) if self._further else send,
            path=self._desk.path.of(scope),
            identified=self._identified,
            refusal=self._refusal,
        )
        if self.background is not None:
            await self.background()


class Rest:
    """An ASGI app for what no endpoint's route takes. Nobody is identified here."""

    PARAMETER: ClassVar[str] = "ai_proxy_rest"

    def __init__(self, door: RouteDoor) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = "/" + scope["path_params"].get(self.PARAMETER, "")
        await self._door.serve(scope, receive, send, path=path)


def route_class(desks: dict[Callable[..., Any], Desk]) -> type[APIRoute]:
    """The class of a router's routes. FastAPI makes new ones of it when the router is included,
    so what belongs to a route is found by its endpoint, which stays the same.
    """

    class ProxyRoute(APIRoute):
        def get_route_handler(self) -> RouteHandler:
            return desks[self.endpoint].guarding(super().get_route_handler())

    return ProxyRoute


async def _sealed() -> Message:
    """In the place of `receive` while dependencies run: the body is for the upstream."""
    await asyncio.sleep(0)  # where `request.is_disconnected` gives up, which may be asked
    raise BodyIsStreamed


def _telling(receive: Receive) -> Receive:
    """Lets a limit on bodies that stands around the route be told as what it is."""

    async def receiving() -> Message:
        try:
            return await receive()
        except HTTPException as error:
            raise told(error) from error

    return receiving


def _adding(headers: RawHeaders, send: Send) -> Send:
    """Puts header lines on the answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return sending
