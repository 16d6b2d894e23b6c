"""Answers what is asked under the dashboard's path, and only those who may see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, get_args
from urllib.parse import parse_qsl

from ai_proxy_mw._errors import (
    ConfigurationError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
    Unavailable,
)
from ai_proxy_mw._http import BytesBody, Response
from ai_proxy_mw._identify import choose, from_route
from ai_proxy_mw._paths import below, check_prefix
from ai_proxy_mw.dashboard import data, sheets
from ai_proxy_mw.dashboard.page import page
from ai_proxy_mw.dashboard.sources import Sources
from ai_proxy_mw.metrics.base import By, Window
from ai_proxy_mw.stages.errors import errors
from ai_proxy_mw.stages.identity import IdentityStage
from ai_proxy_mw.stores.guard import StoreDown

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._identify import Identify
    from ai_proxy_mw._types import Handler, RawHeaders

T = TypeVar("T")

TAIL = 50
"""Calls that the page shows."""

SHEET = 1000
"""The most calls in the file for spreadsheets."""

PATIENCE = 10.0
"""Seconds that a source has for its answer."""

STORE_DOWN = "The store of the numbers does not answer."

_GUARDED: RawHeaders = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]
_NO_PAGE = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_POLICY = b"content-security-policy"


class Dashboard:
    """For a door: what comes under `prefix` is answered by `handle`.

    `request.path` is what follows the prefix. Only GET and HEAD, and nothing is changed by them.
    """

    def __init__(self, prefix: str, identify: Identify, sources: Sources) -> None:
        self.prefix = prefix
        self._sources = sources
        self._who = IdentityStage(choose(identify, None, False))
        self._pages: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "": self._page,
            "/": self._page,
            "/data": self._data,
            "/stats": self._stats,
            "/stats.csv": self._stats_sheet,
            "/calls.csv": self._calls_sheet,
        }
        page()  # read now, and not when the first one looks
        self.handle: Handler = self._handle

    async def _handle(self, request: Request) -> Response:
        if request.path not in self._pages:
            request.path = None  # what a visitor has made up would stand in a log of errors
        response = await errors(request, self._let_in)
        if request.method == "HEAD":
            response.body = BytesBody(b"")
        names = {name for name, _ in response.headers}
        policy = [] if _POLICY in names else [(_POLICY, _NO_PAGE)]
        response.headers = [*response.headers, *policy, *_GUARDED]
        return response

    async def _let_in(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("GET, HEAD")
        try:
            return await self._who(request, self._answer)
        except Unauthorized as error:
            error.message = "You need to be signed in to see this page."
            raise

    async def _answer(self, request: Request) -> Response:
        answer = None if request.path is None else self._pages.get(request.path)
        if answer is None:
            raise NotFound("There is no such page here.")
        return await answer(request)

    async def _page(self, request: Request) -> Response:  # noqa: ARG002 - the same for everybody
        response = _answered(b"text/html; charset=utf-8", page().html)
        response.headers.append((_POLICY, page().policy))
        return response

    async def _data(self, request: Request) -> Response:
        window, by = _asked(request)
        report, recent = await asyncio.gather(
            _or_none(self._sources.stats(window, by)), _or_none(self._sources.recent(TAIL))
        )
        told = {
            "report": None if report is None else data.report(report),
            "recent": None if recent is None else data.recent(recent),
            "upstreams": data.upstreams(self._sources.upstreams()),
            "limits": data.limits(self._sources.limits()),
        }
        return _answered(b"application/json", data.encode(told))

    async def _stats(self, request: Request) -> Response:
        report = await _there(self._sources.stats(*_asked(request)))
        return _answered(b"application/json", data.encode(data.report(report)))

    async def _stats_sheet(self, request: Request) -> Response:
        window, by = _asked(request)
        report = await _there(self._sources.stats(window, by))
        return _sheet(f"ai-{by}-{window}.csv", sheets.of_report(report))

    async def _calls_sheet(self, request: Request) -> Response:  # noqa: ARG002 - it takes no wishes
        records = await _there(self._sources.recent(SHEET))
        return _sheet("ai-calls.csv", sheets.of_calls(records))


def dashboard_of(prefix: str, identify: Identify | None, sources: Sources, api: str) -> Dashboard:
    """A dashboard beside the API's own prefix. Raises ConfigurationError."""
    _check_place(prefix, api)
    if identify is None:
        raise ConfigurationError(
            "dashboard= shows what everybody asks and spends: say who may see it, with "
            "dashboard_identify=your_function, which gives None for everybody else"
        )
    if not callable(identify):
        raise ConfigurationError("dashboard_identify=: give a function, sync or async")
    if identify is from_route:
        raise ConfigurationError(
            "dashboard_identify=from_route: no route says who looks; give a function of the request"
        )
    return Dashboard(prefix, identify, sources)


def _check_place(prefix: str, api: str) -> None:
    try:
        check_prefix(prefix)
    except (ConfigurationError, TypeError):
        raise ConfigurationError(
            f"dashboard={prefix!r}: write a path like '/ai', no slash at its end"
        ) from None
    if below(api, prefix) is not None or below(prefix, api) is not None:
        raise ConfigurationError(
            f"dashboard={prefix!r}: write a path that is not under prefix={api!r}, nor above it"
        )


def _asked(request: Request) -> tuple[Window, By]:
    """What the query says. Raises InvalidRequest."""
    try:
        said = dict(parse_qsl(request.query.decode("ascii"), max_num_fields=10))
    except ValueError:
        raise InvalidRequest("The query string cannot be read.") from None
    return _one_of("window", said, Window, "1h"), _one_of("by", said, By, "model")


def _one_of(name: str, said: dict[str, str], choice: Any, default: str) -> Any:
    given = said.get(name, default)
    if given not in get_args(choice):
        raise InvalidRequest(f"{name}: write one of {', '.join(get_args(choice))}.", param=name)
    return given


async def _or_none(asking: Awaitable[T]) -> T | None:
    """The answer; None where the store behind it is silent."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await asking
    except (StoreDown, TimeoutError):
        return None


async def _there(asking: Awaitable[T]) -> T:
    found = await _or_none(asking)
    if found is None:
        raise Unavailable(STORE_DOWN)
    return found


def _answered(kind: bytes, body: bytes) -> Response:
    return Response(200, [(b"content-type", kind), (b"content-length", b"%d" % len(body))], body)


def _sheet(name: str, body: bytes) -> Response:
    response = _answered(b"text/csv; charset=utf-8", body)
    disposition = f'attachment; filename="{name}"'.encode("ascii")
    response.headers.append((b"content-disposition", disposition))
    return response
