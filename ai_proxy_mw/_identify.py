"""The ways to find out who is calling: the app's own function, issued keys, or nobody's name."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ai_proxy_mw._errors import ConfigurationError

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request

Identify = Callable[["Request"], "str | Awaitable[str | None] | None"]
AsyncIdentify = Callable[["Request"], Awaitable["str | None"]]


def choose(
    identify: Identify | None, api_keys: Mapping[str, str] | None, anonymous: bool
) -> AsyncIdentify:
    """The one way that was given. An open relay must not come about by leaving something out."""
    given = [identify is not None, api_keys is not None, anonymous is not False]
    if sum(given) != 1:
        raise ConfigurationError(
            "Say who may call, in exactly one way: identify=your_function, "
            "api_keys={'subject': 'key'}, or anonymous=True to admit everybody"
        )
    if identify is not None:
        return _by_function(identify)
    if api_keys is not None:
        return ApiKeys(api_keys)
    if anonymous is not True:
        raise ConfigurationError(f"anonymous={anonymous!r}: write True, or leave it out")
    return _by_address


async def _by_address(request: Request) -> str:
    return request.client or "unknown"


def _by_function(identify: Identify) -> AsyncIdentify:
    if not callable(identify):
        raise ConfigurationError("identify=: give a function that takes the request")
    if _is_async(identify):
        return cast("AsyncIdentify", identify)

    async def ask(request: Request) -> str | None:
        answer: Any = await request.run_sync(partial(_call, identify, request))
        if inspect.isawaitable(answer):  # a plain function that hands out a coroutine
            answer = await answer
        return cast("str | None", answer)

    return ask


def _call(identify: Identify, request: Request) -> Any:
    try:
        return identify(request)
    except StopIteration as error:
        # A future cannot hold one, so whoever waits for it would wait for ever.
        raise RuntimeError("identify= raised StopIteration") from error


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - whether its instances are awaited
    )


class ApiKeys:
    """Admits the bearers of the keys it was given, as `Authorization: Bearer` or `x-api-key`.

    Keys are kept and looked up as SHA-256 digests: how long that takes depends on the digest of
    what was presented, which tells nothing of how much of a key was right.
    """

    def __init__(self, api_keys: Mapping[str, str]) -> None:
        self._subjects: dict[bytes, str] = {}
        for subject, key in api_keys.items():
            if not isinstance(subject, str) or not isinstance(key, str):
                raise ConfigurationError("api_keys: write {'subject': 'key'}, both as text")
            if not subject.strip() or not key.strip():
                raise ConfigurationError("api_keys: a subject or its key is empty")
            self._subjects[_digest(key)] = subject
        if len(self._subjects) != len(api_keys):
            raise ConfigurationError("api_keys: two subjects have the same key")
        if not api_keys:
            raise ConfigurationError("api_keys: there is no key, so nobody could call")

    async def __call__(self, request: Request) -> str | None:
        presented = set(request.headers.get_all("x-api-key"))
        for line in request.headers.get_all("authorization"):
            scheme, _, credentials = line.partition(" ")
            if scheme.lower() != "bearer":
                return None  # another claim, beside which no key is looked at
            presented.add(credentials.strip())
        if len(presented) != 1:
            return None
        return self._subjects.get(_digest(presented.pop()))

    def __repr__(self) -> str:
        return f"ApiKeys({sorted(self._subjects.values())!r})"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
