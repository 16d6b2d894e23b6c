"""Hands calls over to the proxy, through the decorators of a view."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from io import BytesIO
from typing import TYPE_CHECKING, Any

from flask import Response, current_app, request

from ai_proxy_mw._errors import ProxyError
from ai_proxy_mw.contrib.flask._asking import Ask, ask, check_ask, meaning_of, refusal_of
from ai_proxy_mw.contrib.flask._response import LEFT, Lines, broken, respond
from ai_proxy_mw.wsgi import RouteDoor

if TYPE_CHECKING:
    from ai_proxy_mw._identity import Identity
    from ai_proxy_mw._proxy import AIProxy

View = Callable[..., Any]
Decorators = Iterable[Callable[[View], View]]

_current: ContextVar[_Call] = ContextVar("ai_proxy_mw.contrib.flask")
"""The call that a decorated view is answering: decorators pass on no arguments of ours."""


class Route:
    """Answers Flask's requests. Raises ConfigurationError for a proxy that is not for routes."""

    def __init__(self, proxy: AIProxy, identify: Ask, decorators: Decorators) -> None:
        self._door = RouteDoor(proxy)
        check_ask(identify)

        def ai_proxy(**_: object) -> Response:
            return _current.get().admit(ask(identify))

        self._guarded: View = ai_proxy
        for decorator in decorators:
            self._guarded = decorator(self._guarded)

    def answer(self, path: str, values: dict[str, object]) -> Any:
        """What a view answers; `path` is what follows the prefix, `values` what the rule found."""
        call = _Call(self._door, path)
        if not self._asks(path):
            return call.relay()
        return call.through(self._guarded, values)

    def _asks(self, path: str) -> bool:
        """Whether it matters who is calling: not for a preflight, nor for what is not there."""
        try:
            self._door.proxy.endpoints.find(request.environ["REQUEST_METHOD"], path)
        except ProxyError:
            return False
        return True


class _Call:
    """A call on its way through the decorators."""

    def __init__(self, door: RouteDoor, path: str) -> None:
        self._door = door
        self._path = path
        self._admitted: Response | None = None

    def through(self, guarded: View, values: dict[str, object]) -> Any:
        """What the decorated view answers, if the decorators have let the call pass."""
        token = _current.set(self)
        try:
            answer = current_app.ensure_sync(guarded)(**values)
            if self._admitted is not None:
                return answer
            refusal = meaning_of(current_app.make_response(answer))
        except Exception as error:  # noqa: BLE001 - the corridor tells and logs it
            if self._admitted is not None:
                self._admitted.close()
            refusal = refusal_of(error)
        finally:
            _current.reset(token)
            # The proxy's task has this call in its context, and must not keep alive its own answer.
            self._admitted = None
        return self.relay(refusal=refusal)

    def admit(self, identified: str | Identity | None) -> Response:
        """The innermost view: what the decorators stand around."""
        self._admitted = self.relay(_with_body(request.environ), identified=identified)
        return self._admitted

    def relay(
        self,
        environ: dict[str, Any] | None = None,
        *,
        identified: str | Identity | None = None,
        refusal: Exception | None = None,
    ) -> Response:
        heads: list[tuple[str, Lines]] = []
        try:
            pieces = self._door.serve(
                environ or request.environ,
                lambda status, headers: heads.append((status, headers)),
                path=self._path,
                identified=identified,
                refusal=refusal,
            )
        except ConnectionError as error:
            return respond(LEFT, [], broken(error))
        [(status, headers)] = heads
        return respond(status, headers, pieces)


def _with_body(environ: dict[str, Any]) -> dict[str, Any]:
    """The environ, with the body put back if a hook of the app has looked at it.

    Raises RuntimeError if the hook has not kept it.
    """
    if "stream" not in vars(request):
        return environ
    body = request.get_data()
    if request.content_length not in (None, len(body)):
        raise RuntimeError(
            "a before_request function has read the call's body as a form or a stream; "
            "request.get_data() and request.get_json() would have kept it"
        )
    return environ | {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
