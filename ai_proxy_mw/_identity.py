"""Who is calling, as the host app knows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from types import MappingProxyType

from ai_proxy_mw._limits import Limit, limits_of
from ai_proxy_mw._models import matches

MAX_SUBJECT = 256
"""The most characters of a subject: it becomes part of keys in stores and of log lines."""

_NO_TAGS: Mapping[str, str] = MappingProxyType({})

# Controls, line separators and halves of surrogate pairs: no store or log takes them faithfully.
_UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller, and what the app's own records say about them.

    subject: the app's id of the caller; the key of limits, budgets, cache scope and metrics.
    scope: the group with which the caller shares cached answers; nobody if None.
    limits: the limits that hold for the caller, in the place of the proxy's own; those if None.
    models: the models that the caller may ask for, as names or patterns (`gpt-4.1*`); all if None.
    tags: what else records of the caller's calls shall hold, such as a team or a plan.

    Raises TypeError for values of other types, ConfigurationError for limits that are none. A
    subject that is blank, longer than 256 characters or has control characters is answered with
    401 when it is used.
    """

    subject: str
    _: KW_ONLY
    scope: str | None = None
    limits: Iterable[str | Limit] | None = None
    models: Iterable[str] | None = None
    tags: Mapping[str, str] = field(default_factory=lambda: _NO_TAGS)

    def __post_init__(self) -> None:
        if not isinstance(self.subject, str):
            raise TypeError(
                f"a subject is text, not {type(self.subject).__name__}: write str(user.id)"
            )
        if self.scope is not None and not isinstance(self.scope, str):
            raise TypeError("Identity(scope=...): write text")
        if self.limits is not None:
            object.__setattr__(self, "limits", limits_of(self.limits))
        if self.models is not None:
            object.__setattr__(self, "models", _names(self.models))
        if self.tags is not _NO_TAGS:
            object.__setattr__(self, "tags", MappingProxyType(_texts(self.tags)))

    def may_use(self, model: str) -> bool:
        """Whether a model is among those that the caller may ask for."""
        return self.models is None or matches(model, self.models)


def named(subject: str) -> Identity:
    """The identity of somebody of whom no more is known."""
    # Only what is short is kept in mind.
    is_short = type(subject) is str and len(subject) <= MAX_SUBJECT
    return _remembered(subject) if is_short else Identity(subject)


_remembered = lru_cache(maxsize=4096)(Identity)


def fault(subject: str) -> str | None:
    """What is wrong with a subject, or None."""
    if len(subject) > MAX_SUBJECT:
        return f"it is longer than {MAX_SUBJECT} characters"
    return _fault(subject)


@lru_cache(maxsize=4096)
def _fault(subject: str) -> str | None:
    if not subject.strip():
        return "it is blank"
    if _UNUSABLE.search(subject):
        return "it has characters that cannot be part of a key"
    return None


def _names(models: Iterable[str]) -> tuple[str, ...]:
    names = () if isinstance(models, str) else tuple(models)
    if isinstance(models, str) or not all(isinstance(name, str) for name in names):
        raise TypeError("Identity(models=...): write a list of names")
    return names


def _texts(tags: Mapping[str, str]) -> dict[str, str]:
    found = dict(tags)
    if not all(isinstance(part, str) for item in found.items() for part in item):
        raise TypeError("Identity(tags=...): write {'name': 'value'}, both as text")
    return found
