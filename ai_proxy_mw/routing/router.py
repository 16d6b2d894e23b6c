"""Which lanes a call may take, and in which order."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from math import log
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ai_proxy_mw._errors import ConfigurationError, InvalidRequest, NotFound
from ai_proxy_mw._models import matches
from ai_proxy_mw.schema.call import runs_a_model

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw.routing.lane import Lane

Names: TypeAlias = "str | Iterable[str] | None"

Route = Callable[["Request"], "Names | Awaitable[Names]"]
"""The owner's own choice: names of upstreams in the order in which they are asked."""

_MODEL = "GET /models/{id...}"

_KEPT_THERE = ("previous_response_id", "conversation", "prompt")
"""Members that name what one upstream keeps, and no other knows."""


_NAMES_FILES = ("POST /batches",)
"""Endpoints whose calls name what one upstream keeps."""


class Group(NamedTuple):
    """Lanes that are as good as each other.

    model: that is asked of them; None where the call names none. instead: whether it is another
    one than the caller has asked for.
    """

    lanes: tuple[Lane, ...]
    model: str | None
    instead: bool


class Router:
    """fallback: models, each with those that may answer in its place."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        fallback: Mapping[str, Iterable[str]],
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.lanes = tuple(lanes)
        self._fallback = _fallback(fallback)
        self._draw = draw
        self._found = lru_cache(maxsize=1024)(self._find)

    @property
    def by_model(self) -> bool:
        """Whether it must be known which model is asked."""
        upstreams = [lane.provider.upstream for lane in self.lanes]
        named = any(each.names is not None for each in upstreams)
        return bool(self._fallback) or named or any(lane.provider.by_model for lane in self.lanes)

    def groups(self, request: Request) -> Sequence[Group]:
        """Where a call may go, the first choice first. Raises NoSuchModel where it may nowhere."""
        endpoint = request.endpoint
        model = _model_of(request)
        groups = self._found(endpoint, model if model is None else model[:257])
        if not groups:
            raise _nowhere(model)
        if not runs_a_model(endpoint) or endpoint in _NAMES_FILES or _is_bound(request):
            # What one upstream keeps, no other knows: always the same one, and no other.
            return [Group(groups[0].lanes[:1], groups[0].model, instead=False)]
        return groups

    def named(self, names: Iterable[str], request: Request) -> Sequence[Group]:
        """The groups of an owner's own choice."""
        model = _model_of(request)
        found: list[Group] = []
        is_named = False
        for name in names:
            lanes = tuple(lane for lane in self.lanes if lane.provider.name == name)
            if not lanes:
                raise ConfigurationError(f"route: there is no upstream {name!r}")
            # No name of a model may lead to another path than that of a model.
            if lanes[0].provider.can_be_asked(model):
                found.append(Group(lanes, model, instead=False))
            is_named = True
        if not is_named:
            raise ConfigurationError("route: name an upstream at least, or give None")
        if not found:
            raise _nowhere(model)
        return found

    def ordered(self, lanes: Iterable[Lane]) -> list[Lane]:
        """Lanes in the order to ask them: by their weights, those with less to do before others."""
        found = list(lanes)
        if len(found) > 1:
            draw = self._draw
            # A weighted draw without putting back (Efraimidis and Spirakis, 2006), by logarithms:
            # the powers of small weights are all 0.
            found.sort(key=lambda lane: log(1.0 - draw()) / lane.weight, reverse=True)
            found.sort(key=_load)
        return found

    def models_behind(self, model: str) -> tuple[tuple[str, str], ...]:
        """Names under which a model may be answered: as it is asked for, and as it is called."""
        names: dict[tuple[str, str], None] = {}
        for asked in (model, *self._instead_of(model)):
            for lane in self.lanes:
                own = lane.provider.own_name(asked)
                if own is not None:
                    names[asked, own] = None
        return tuple(names)

    def _find(self, endpoint: str, model: str | None) -> tuple[Group, ...]:
        serving = [lane for lane in self.lanes if lane.provider.serves(endpoint)]
        if model is None:
            return _by_priority([lane for lane in serving if not lane.provider.by_model], None)
        groups: list[Group] = []
        for asked in dict.fromkeys((model, *self._instead_of(model))):
            having = [lane for lane in serving if lane.provider.own_name(asked) is not None]
            groups += _by_priority(having, asked, instead=asked != model)
        return tuple(groups)

    def _instead_of(self, model: str) -> tuple[str, ...]:
        if model in self._fallback:
            return self._fallback[model]
        found = [name for name in self._fallback if matches(model, [name])]
        return self._fallback[max(found, key=len)] if found else ()


def _by_priority(
    lanes: list[Lane], model: str | None, *, instead: bool = False
) -> tuple[Group, ...]:
    lanes = sorted(lanes, key=_rank)
    return tuple(Group(tuple(each), model, instead) for _, each in groupby(lanes, _rank))


def _rank(lane: Lane) -> tuple[bool, int]:
    """Who names its models goes before who takes all."""
    upstream = lane.provider.upstream
    return upstream.names is None, upstream.priority


def _load(lane: Lane) -> float:
    return lane.in_flight / lane.weight


def _model_of(request: Request) -> str | None:
    if request.endpoint == _MODEL:
        return (request.path or "").removeprefix("/models/")
    return None if request.call is None else request.call.model


def _is_bound(request: Request) -> bool:
    call = request.call
    if call is None or call.endpoint != "POST /responses":
        return False
    body = call.body()
    return any(f'"{name}"'.encode() in body and call.get(name) for name in _KEPT_THERE)


def _nowhere(model: str | None) -> Exception:
    if model is None:
        return InvalidRequest(
            "Say which model you ask.", param="model", code="missing_required_parameter"
        )
    # Not which: behind an alias it has a name that is not the caller's to know.
    error = NotFound("There is no such model here.")
    error.param, error.code = "model", "model_not_found"
    return error


def _fallback(given: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    found = {}
    for model, instead in given.items():
        names = () if isinstance(instead, str) else tuple(instead)
        if not names or not all(isinstance(name, str) and name for name in (model, *names)):
            raise ConfigurationError(
                f"fallback={dict(given)!r}: write {{'a-model': ['another', 'a-third']}}"
            )
        found[model] = names
    return found
