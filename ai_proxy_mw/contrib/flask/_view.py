"""The proxy as a view and as a blueprint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import Blueprint, request
from werkzeug.routing import BaseConverter

from ai_proxy_mw.contrib.flask._route import Decorators, Route, View

if TYPE_CHECKING:
    from flask.blueprints import BlueprintSetupState

    from ai_proxy_mw._proxy import AIProxy
    from ai_proxy_mw.contrib.flask._asking import Ask

# What is none of these, Flask answers with its own 405.
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
_CONVERTER = "ai_proxy_rest"


def proxy_blueprint(
    proxy: AIProxy, *, identify: Ask, decorators: Decorators = (), name: str = "ai_proxy"
) -> Blueprint:
    """A blueprint that serves the proxy under its prefix.

    proxy: one with `identify=from_route`.
    identify: says in the request context who is calling; without arguments, sync or async.
    decorators: what stands around the view, such as `login_required`; the last is outermost.
    name: the blueprint's.

    A decorator that lets nobody in ends the call: an answer with a status of 400 or more is the
    caller's answer, any other means that nobody is signed in, and an `HTTPException` is told in
    the shape of our errors. Preflights, and what is no endpoint, are answered before the
    decorators and `identify`. Raises ConfigurationError.
    """
    blueprint = Blueprint(name, __name__)
    blueprint.record(_teach_converter)
    blueprint.add_url_rule(
        f"{proxy.prefix}<{_CONVERTER}:path>",
        view_func=proxy_view(proxy, identify=identify, decorators=decorators),
    )
    return blueprint


def proxy_view(proxy: AIProxy, *, identify: Ask, decorators: Decorators = ()) -> View:
    """A view for `app.add_url_rule(f"{proxy.prefix}/<path:path>", view_func=...)`.

    Takes what `proxy_blueprint` takes. With a rule of your own, Werkzeug redirects a path with
    `//` in it, which the blueprint answers with 404.
    """
    route = Route(proxy, identify, decorators)

    def ai_proxy(path: str = "", **values: object) -> Any:
        # Werkzeug looks for a rule as if there were one slash at the beginning.
        is_plain = not request.environ["PATH_INFO"].startswith("//")
        return route.answer(f"/{path}" if is_plain else "", {"path": path, **values})

    # Read by Flask where a rule is added. Also for what the proxy does not take: it says so.
    vars(ai_proxy).update(methods=_METHODS, provide_automatic_options=False)
    return ai_proxy


class _Rest(BaseConverter):
    """All below the prefix: `//` and a slash at the end, too, and the prefix itself."""

    regex = r"(?:/[\s\S]*)?"

    def to_python(self, value: str) -> str:
        return value[1:]

    def to_url(self, value: str) -> str:
        return quote(f"/{value}")


def _teach_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters[_CONVERTER] = _Rest
