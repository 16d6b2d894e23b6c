"""The ways to find out who is calling: the app's own function, issued keys, or nobody's name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ai_proxy_mw._api_keys import ApiKeys, presented_key
from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._hooks import hook, is_async

if TYPE_CHECKING:
    from ai_proxy_mw._api_keys import FindSubject, IssuedKeys
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._identity import Identity

Identify = Callable[["Request"], "str | Identity | Awaitable[str | Identity | None] | None"]
AsyncIdentify = Callable[["Request"], Awaitable["str | Identity | None"]]

T = TypeVar("T")


class AppAnswer(Exception):
    """The host app has answered in our place, which ends the call: a 401 with a page of its own."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"the app answered {response.status}")
        self.response = response


def choose(
    identify: Identify | None, api_keys: IssuedKeys | FindSubject | None, anonymous: bool
) -> AsyncIdentify:
    """The one way that was given. An open relay must not come about by leaving something out."""
    given = [identify is not None, api_keys is not None, anonymous is not False]
    if sum(given) != 1:
        raise ConfigurationError(
            "Say who may call, in exactly one way: identify=your_function, "
            "api_keys={'subject': 'key'}, or anonymous=True to admit everybody"
        )
    if identify is not None:
        return _asking(identify, "identify=", _itself)
    if api_keys is not None:
        return _by_key(api_keys)
    if anonymous is not True:
        raise ConfigurationError(f"anonymous={anonymous!r}: write True, or leave it out")
    return _by_address


async def from_route(request: Request) -> str | Identity | None:
    """`identify=from_route`: the route that hands a call over has said who is calling.

    For `proxy_router` and `proxy_view` of `ai_proxy_mw.contrib`, where the app's own dependencies
    and decorators decide. Raises RuntimeError for a call that came another way.
    """
    if not request.from_route:
        raise RuntimeError(
            "identify=from_route, but the call did not come through a route: "
            "use proxy_router or proxy_view, and no middleware"
        )
    return request.identified


async def _by_address(request: Request) -> str:
    return request.client or "unknown"


def _by_key(api_keys: IssuedKeys | FindSubject) -> AsyncIdentify:
    if isinstance(api_keys, Mapping):
        return ApiKeys(api_keys)
    return _asking(api_keys, "api_keys=", presented_key)


def _asking(
    function: Callable[[Any], Any], name: str, what: Callable[[Request], object]
) -> AsyncIdentify:
    """Asks a function of the app about `what` of the request; not at all about None."""
    if not callable(function):
        raise ConfigurationError(f"{name}: give a function, sync or async")
    if what is _itself and is_async(function):
        return function  # a frame less for each call
    ask = hook(function, name)

    async def ask_about(request: Request) -> str | Identity | None:
        given = what(request)
        if given is None:
            return None
        found: str | Identity | None = await ask(request, given)
        return found

    return ask_about


def _itself(request: Request) -> Request:
    return request
