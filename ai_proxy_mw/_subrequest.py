"""Asks the host app itself who is calling, as nginx's auth_request does, without a network."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from ai_proxy_mw._errors import ConfigurationError, Forbidden, Unauthorized, Unavailable
from ai_proxy_mw._hook_threads import hook_threads
from ai_proxy_mw._identify import AppAnswer
from ai_proxy_mw._subrequest_answer import MARK, Target, passed_on
from ai_proxy_mw._subrequest_asgi import ask_asgi
from ai_proxy_mw._subrequest_cache import Credentials, Remembered
from ai_proxy_mw._subrequest_subject import Read, from_header, from_json, from_member
from ai_proxy_mw._subrequest_wsgi import ask_wsgi

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._identity import Identity
    from ai_proxy_mw._subrequest_answer import Answer

logger = logging.getLogger("ai_proxy_mw")

_PATH = re.compile(r"/(?!/)[!\"$-~]*")  # visible ASCII but # (RFC 3986, section 3.5)
_NAME = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2, without _
_NOT_KEPT = re.compile(rb"\b(?:no-store|no-cache)\b", re.IGNORECASE)
_FOR_GOOD = (301, 308)  # no way to a login


class SubrequestIdentify:
    """An `identify=` that calls `GET path` of the host app, in process, as the caller.

    path: a path of the app, outside the proxy's prefix, with its query if it needs one.
    subject: the member of the answer's JSON that names the caller (`"user.id"` goes deeper), or a
        function of the decoded JSON that returns what an `identify=` function does.
    header: the header of the answer that names the caller; the body is not looked at then.
    timeout: the most seconds that the app may take; longer is 503.
    cache_ttl: the seconds for which an answer holds for the same credentials; 0 asks every time.
    cache_size: the most callers remembered; the least recently used go first.
    credentials: the names of all headers that tell the app who is calling. Nothing but these, the
        host and the mount tells callers apart in the cache.
    app: the app to ask; the one behind the middleware if None.

    2xx admits. 401 and 403 are passed on as they are. A redirect, such as one to a login page,
    is 401. All else is a fault: 500, and in the log.

    The app sees the caller's headers, address and cookies, but no body. An ASGI app runs in the
    caller's task and is cancelled when its time is up. A WSGI app runs in one of 64 threads; it
    cannot be interrupted, so that a call which is too slow goes on there.

    Raises ConfigurationError. Calling it raises RuntimeError for every fault.
    """

    def __init__(
        self,
        path: str,
        *,
        subject: str | Callable[[Any], str | Identity | None] = "subject",
        header: str | None = None,
        timeout: float = 5.0,
        cache_ttl: float = 0.0,
        cache_size: int = 10_000,
        credentials: Iterable[str] = ("authorization", "cookie", "x-api-key"),
        app: Callable[..., Any] | None = None,
    ) -> None:
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            raise ConfigurationError("SubrequestIdentify: write a path of your app like '/auth/me'")
        if app is not None and not callable(app):
            raise ConfigurationError("SubrequestIdentify(app=...): give an ASGI or WSGI app")
        self._target = Target.of(path)
        self._name = f"SubrequestIdentify({path.partition('?')[0]!r})"  # a query may hold a secret
        self._read = _reader(subject, header)
        self._timeout = _seconds("timeout", timeout, above_zero=True)
        self._app = app
        self._credentials = _credentials(credentials)
        self._remembered = _remembered(cache_ttl, cache_size)

    async def __call__(self, request: Request) -> str | Identity | None:
        remembered = self._remembered
        key = None if remembered is None else self._key(request)
        if remembered is None or key is None:
            return self._judge(request, await self._ask(request))
        caller = remembered.get(key)
        if caller is None:
            answer = await self._ask(request)
            caller = self._judge(request, answer)
            if caller is not None and not _must_not_be_kept(answer):
                remembered.put(key, caller, self._app_of(request))
        return caller

    async def _ask(self, request: Request) -> Answer:
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                answer = await self._call(request)
        except Exception:
            if not deadline.expired():
                raise
        if deadline.expired():  # also if the app has answered all the same
            logger.warning("%s: %r: the app took more than %s s", request.id, self, self._timeout)
            raise Unavailable("The app did not say in time who is calling.")
        return answer

    def _key(self, request: Request) -> bytes | None:
        # The same credentials may mean another caller, or nobody, to another app that asks by
        # this object, and to another tenant, who has a host or a mount of their own.
        headers, told = request.headers, request.scope or request.environ or {}
        root = told.get("root_path") or told.get("SCRIPT_NAME") or ""
        return self._credentials.key(
            headers, id(self._app_of(request)), headers.get("host") or "", root
        )

    def _app_of(self, request: Request) -> Any:
        return request.app if self._app is None else self._app

    async def _call(self, request: Request) -> Answer:
        app = self._app_of(request)
        if app is None:
            raise RuntimeError(f"{self!r}: no app stands behind the proxy: give it app=your_app")
        told = request.environ if request.scope is None else request.scope
        if told is not None and MARK in told:
            raise RuntimeError(
                f"{self!r}: the question came back to the proxy: name a path outside its prefix"
            )
        if request.scope is not None:
            return await ask_asgi(app, request.scope, self._target)
        # Not `request.run_sync`: the worker's own thread could not be left when time is up.
        ask = partial(copy_context().run, ask_wsgi, app, request.environ or {}, self._target)
        return await asyncio.get_running_loop().run_in_executor(hook_threads(), ask)

    def _judge(self, request: Request, answer: Answer) -> str | Identity | None:
        status = answer.status
        if 200 <= status < 300:
            return self._read(answer)
        if status in (401, 403):
            raise _refusal(request, answer)
        if 300 <= status < 400:
            if status in _FOR_GOOD:
                logger.warning("%s: %r: the path has moved (%d)", request.id, self, status)
            return None
        raise RuntimeError(f"{self!r}: the app answered {status}")

    def __repr__(self) -> str:
        return self._name


def _refusal(request: Request, answer: Answer) -> Exception:
    body = answer.body
    if body is None:
        return Unauthorized() if answer.status == 401 else Forbidden()
    return AppAnswer(passed_on(answer, body, head=request.method == "HEAD"))


def _must_not_be_kept(answer: Answer) -> bool:
    return any(_NOT_KEPT.search(value) for value in answer.values(b"cache-control"))


def _reader(subject: Any, header: str | None) -> Read:
    if header is not None:
        if subject != "subject":
            raise ConfigurationError("SubrequestIdentify: give subject= or header=, not both")
        return from_header(_header_name("header", header))
    if callable(subject):
        return from_json(subject)
    if not isinstance(subject, str) or not all(subject.split(".")):
        raise ConfigurationError(
            "SubrequestIdentify(subject=...): write a member of the answer like 'user.id', "
            "or give a function"
        )
    return from_member(subject)


def _credentials(names: Iterable[str]) -> Credentials:
    if isinstance(names, str):
        raise ConfigurationError("SubrequestIdentify(credentials=...): write a list of headers")
    return Credentials([_header_name("credentials", name) for name in names])


def _header_name(argument: str, name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"SubrequestIdentify({argument}=...): {name!r} is no header name")
    return name


def _remembered(ttl: float, size: int) -> Remembered | None:
    if type(size) is not int or size < 1:
        raise ConfigurationError("SubrequestIdentify(cache_size=...): write a number above 0")
    seconds = _seconds("cache_ttl", ttl, above_zero=False)
    return Remembered(seconds, size) if seconds else None


def _seconds(argument: str, value: object, *, above_zero: bool) -> float:
    fits = type(value) in (int, float) and math.isfinite(value) and value >= 0  # type: ignore[arg-type,operator]
    if not fits or (above_zero and not value):
        raise ConfigurationError(f"SubrequestIdentify({argument}=...): write seconds, like 5.0")
    return float(value)  # type: ignore[arg-type]
