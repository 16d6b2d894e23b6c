"""Which model may be asked, what it can do, and how much one call may ask for."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Container, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ai_proxy_mw._caps import Caps
from ai_proxy_mw._errors import InvalidRequest, ModelNotAllowed
from ai_proxy_mw._models import Ability, Models
from ai_proxy_mw.schema.call import runs_a_model

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request, Response
    from ai_proxy_mw._types import Handler
    from ai_proxy_mw.schema.call import Call

_MODEL = "GET /models/{id...}"

_MOST = {
    "POST /chat/completions": ("max_completion_tokens", "max_tokens"),
    "POST /completions": ("max_tokens",),
    "POST /messages": ("max_tokens",),
    "POST /responses": ("max_output_tokens",),
}
"""Where a call says how long its answer may be; the first is written where none is."""

_LONGEST_NAME = 256

_NAMES_NO_MODEL = re.compile(rb"(?:(?:beta=true|api-version=[A-Za-z0-9.-]+)(?:&|$))*")
"""Queries that the official clients of Anthropic and of Azure send with each call."""

_TOOLS = ("tools", "functions", "mcp_servers", "web_search_options")
"""Members that give a model something to use."""

_MEDIA: dict[str, Ability] = {
    "image": "vision",
    "image_data": "vision",
    "image_link": "vision",
    "audio": "audio",
}
_ABLE: dict[Ability, str] = {
    "vision": "look at pictures",
    "audio": "listen",
    "tools": "use tools",
    "json_schema": "answer by a JSON schema",
}


class ModelRulesStage:
    """seen_in_passing: endpoints whose model is judged further in, while their upload passes."""

    def __init__(self, models: Models, caps: Caps, *, seen_in_passing: Container[str]) -> None:
        self._models = models
        self._seen_in_passing = seen_in_passing
        self._caps = caps
        self._known_lacking = lru_cache(maxsize=1024)(models.lacking)

    # Not a coroutine of its own: that would be one more frame to wake for every call.
    def __call__(self, request: Request, handler: Handler) -> Awaitable[Response]:
        if self._models.restrict(request.identity):
            self._check_models(request)
        call = request.call
        if call is not None:
            asked, call = call.model, self._renamed(call)
            if request.note is not None:
                request.note.model = asked
            self._check_abilities(call)
            request.call = self._capped(call)
        return handler(request)

    def _check_models(self, request: Request) -> None:
        """Whether the caller may use the models asked for; nothing unknown passes."""
        if request.endpoint == _MODEL:
            asked = [(request.path or "").removeprefix("/models/")]
        elif not runs_a_model(request.endpoint):
            return
        elif not _NAMES_NO_MODEL.fullmatch(request.query):
            raise InvalidRequest("You may use certain models only, and a query could name another.")
        elif request.endpoint in self._seen_in_passing:
            return
        elif request.call is None or request.call.model is None:
            raise ModelNotAllowed("You may use certain models only, and this call names none.")
        else:
            asked = [request.call.model, *request.call.other_models]
        for model in asked:
            if not self._models.allows_to(request.identity, model):
                raise ModelNotAllowed(f"You may not use the model {model[:_LONGEST_NAME]!r}.")

    def _renamed(self, call: Call) -> Call:
        if not self._models.aliases:
            return call
        for other in call.other_models:
            if other in self._models.aliases:
                # What has that name upstream is another model than the one that is meant here.
                raise InvalidRequest(
                    f"Name the model {other!r} as 'model', or by its own name.",
                    code="alias_beside_model",
                )
        real = None if call.model is None else self._models.real(call.model)
        return call if real == call.model else call.replace(model=real)

    def _check_abilities(self, call: Call) -> None:
        lacking = None if call.model is None else self._lacking(call.model)
        if not lacking:
            return
        for ability, param in _wanted(call):
            if ability in lacking:
                raise InvalidRequest(
                    f"The model {call.model!r} cannot {_ABLE[ability]}.{self._instead(ability)}",
                    param=param,
                    code=f"model_without_{ability}",
                )

    def _lacking(self, model: str) -> frozenset[Ability]:
        # A longer name is none of a model, and is not kept in the cache.
        return self._known_lacking(model) if len(model) <= _LONGEST_NAME else frozenset()

    def _instead(self, ability: Ability) -> str:
        names = ", ".join(dict.fromkeys(self._models.having(ability)))
        return f" Models that can: {names}." if names else ""

    def _capped(self, call: Call) -> Call:
        caps = self._caps
        if not caps.tools:
            for name in _TOOLS:
                if call.gives(name):
                    message = "Tools may not be used here."
                    raise InvalidRequest(message, param=name, code="no_tools_here")
        if caps.max_n is not None:
            _check_cap(call, "n", caps.max_n)
            _check_cap(call, "best_of", caps.max_n)
        if caps.max_messages is not None:
            _check_length(call, caps.max_messages)
        if caps.max_output_tokens is not None:
            return self._shortened(call, caps.max_output_tokens)
        return call

    def _shortened(self, call: Call, most: int) -> Call:
        names = _MOST.get(call.endpoint, ())
        given = {name: call.get(name) for name in names if call.gives(name)}
        if names and not given:
            return call.replace(**{names[0]: most})
        if self._caps.on_excess == "refuse":
            for name in given:
                _check_cap(call, name, most)
        longer = [name for name, value in given.items() if _whole(value, name) > most]
        return call.replace(**dict.fromkeys(longer, most)) if longer else call


def _wanted(call: Call) -> Iterator[tuple[Ability, str]]:
    """What a call asks of a model, with where it does so, in the order of the corridor's words."""
    for medium in call.media:
        if medium.kind in _MEDIA:
            yield _MEDIA[medium.kind], medium.param
    for name in ("tools", "functions"):
        if call.gives(name):
            yield "tools", name
    form = call.get("response_format") if call.gives("response_format") else None
    if isinstance(form, dict) and form.get("type") == "json_schema":
        yield "json_schema", "response_format"


def _check_cap(call: Call, name: str, most: int) -> None:
    value = call.get(name)
    if value is not None and _whole(value, name) > most:
        raise InvalidRequest(
            f"Invalid '{name}': at most {most} is taken here, but got {str(value)[:64]}.",
            param=name,
            code="integer_above_max_value",
        )


def _whole(value: Any, name: str) -> int:
    """The number, which only an unjudged call can have in another way: as 1e9, or as a text."""
    if isinstance(value, int):
        return value
    message = f"Invalid type for '{name}': expected an integer."
    raise InvalidRequest(message, param=name, code="invalid_type")


def _check_length(call: Call, most: int) -> None:
    # Elsewhere, `input` is no conversation but texts that have nothing to do with each other.
    for name in ("messages", "input") if call.endpoint == "POST /responses" else ("messages",):
        value = call.get(name)
        if isinstance(value, list) and len(value) > most:
            raise InvalidRequest(
                f"Invalid '{name}': at most {most} are taken here, but got {len(value)}.",
                param=name,
                code="array_above_max_length",
            )
