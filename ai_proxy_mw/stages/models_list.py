"""Answers which models there are, where that is not just what one upstream says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import NotFound, UpstreamError
from ai_proxy_mw._header_rules import HARMLESS
from ai_proxy_mw._http import Response
from ai_proxy_mw.routing.catalogue import MODELS
from ai_proxy_mw.routing.listing import merged, page

if TYPE_CHECKING:
    import msgspec

    from ai_proxy_mw._http import Request
    from ai_proxy_mw._models import Models
    from ai_proxy_mw._types import Handler
    from ai_proxy_mw.routing.catalogue import Catalogue, Heard

_MODEL = "GET /models/{id...}"

_LONG_WORK = 1000
"""Entries from which on they are merged in a thread."""

_IN_PART: tuple[bytes, bytes] = (b"x-ai-proxy-partial", b"1")
"""Told where an upstream could not be asked, so that its models are not in the list."""


class ModelsListStage:
    """app: who is said to own the models that no upstream lists."""

    def __init__(self, catalogue: Catalogue, models: Models, *, app: str) -> None:
        self._catalogue = catalogue
        self._models = models
        self._app = app
        self._aliases = [name for name, model in models.aliases.items() if catalogue.has(model)]
        self._always = not catalogue.is_plain or models.allow is not None or bool(models.aliases)
        self._named = frozenset((*catalogue.named, *models.aliases))

    # Not a coroutine of its own: that would be one more frame to wake for every call.
    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]:
        if request.endpoint == MODELS:
            if self._always or self._models.restrict(request.identity):
                return self._all(request)
        elif request.endpoint == _MODEL:
            model = (request.path or "").removeprefix("/models/")
            if self._catalogue.has_several or model in self._named:
                return self._one(request, model)
        return handler(request)

    async def _all(self, request: Request) -> Response:
        heard = await self._catalogue.ask(request)
        failures = [each.failure for each in heard if each.failure is not None]
        if failures and len(failures) == len(heard):
            return _given(request, failures[0])
        return _answer(request, page(await self._entries(request, heard)), in_part=bool(failures))

    async def _one(self, request: Request, model: str) -> Response:
        heard = await self._catalogue.ask(request)
        entry = (await self._entries(request, heard)).get(model)
        if entry is not None:
            return _answer(request, bytes(memoryview(entry)), in_part=False)
        for each in heard:
            if each.failure is not None:
                return _given(request, each.failure)  # it may be one of these
        raise _no_such(model)

    async def _entries(self, request: Request, heard: Sequence[Heard]) -> Mapping[str, msgspec.Raw]:
        def merge() -> Mapping[str, msgspec.Raw]:
            return merged(
                [(each.provider, each.entries) for each in heard],
                named=self._catalogue.named,
                aliases=self._aliases,
                app=self._app,
                allowed=lambda model: self._models.allows_to(request.identity, model),
            )

        is_long = sum(len(each.entries) for each in heard) > _LONG_WORK
        return await asyncio.to_thread(merge) if is_long else merge()


def _answer(request: Request, body: bytes, *, in_part: bool) -> Response:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"private"),
        *HARMLESS,
    ]
    if in_part:
        headers.append(_IN_PART)
    return Response(200, headers, b"" if request.method == "HEAD" else body)


def _given(request: Request, failure: UpstreamError | Response) -> Response:
    if isinstance(failure, UpstreamError):
        raise failure
    if request.method == "HEAD":
        return Response(failure.status, failure.headers)
    return failure


def _no_such(model: str) -> NotFound:
    error = NotFound(f"There is no model {model[:256]!r} here.")
    error.param, error.code = "model", "model_not_found"
    return error
