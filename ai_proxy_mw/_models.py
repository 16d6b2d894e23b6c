"""Which models there are for callers, under which names, and what they can do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

from ai_proxy_mw._errors import ConfigurationError

if TYPE_CHECKING:
    from ai_proxy_mw._identity import Identity

Ability = Literal["vision", "audio", "tools", "json_schema"]

_ABILITIES = get_args(Ability)

_SEVERAL = re.compile(r"[,;|\s\x00-\x1f]")

# As the providers' model pages say (November 2026). A model that is in no line is not known, and
# may do everything: what is new shall not be refused.
_KNOWN: Mapping[str, tuple[Ability, ...]] = {
    "gpt-4.1*": ("vision", "tools", "json_schema"),
    "gpt-4o*": ("vision", "tools", "json_schema"),
    "gpt-4o-audio*": ("audio", "tools"),
    "gpt-4o-mini-audio*": ("audio", "tools"),
    "gpt-audio*": ("audio", "tools"),
    "gpt-4-turbo*": ("vision", "tools"),
    "gpt-4": ("tools",),
    "gpt-4-0613": ("tools",),
    "gpt-3.5-turbo*": ("tools",),
    "gpt-5*": ("vision", "tools", "json_schema"),
    "o1": ("vision", "tools", "json_schema"),
    "o1-mini*": (),
    "o3-mini*": ("tools", "json_schema"),
    "o3": ("vision", "tools", "json_schema"),
    "o4-mini*": ("vision", "tools", "json_schema"),
    "claude-*": ("vision", "tools", "json_schema"),
    "claude-2*": (),
    "claude-instant*": (),
    "gemini-*": ("vision", "audio", "tools", "json_schema"),
    "deepseek-*": ("tools",),
}


@dataclass(frozen=True, slots=True)
class Models:
    """The models that callers may ask for.

    allow: names or patterns (`gpt-4.1*`); all if None. Aliases need not be among them.
    aliases: names of the app's own, each for a model upstream: `{"fast": "gpt-4.1-mini"}`.
    capabilities: what models can do, by name or pattern: `{"our-llava": ["vision"]}`, of vision,
        audio, tools and json_schema. These go before the ones that are known here, a name before
        patterns, and of patterns the longest.

    Raises ConfigurationError.
    """

    allow: Iterable[str] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    capabilities: Mapping[str, Iterable[str]] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if self.allow is not None:
            object.__setattr__(self, "allow", _names("allow", self.allow))
        aliases = dict(self.aliases)
        if not all(_is_name(part) for pair in aliases.items() for part in pair):
            raise ConfigurationError(f"Models(aliases={aliases!r}): write {{'fast': 'a-model'}}")
        if set(aliases.values()) & set(aliases):
            raise ConfigurationError(f"Models(aliases={aliases!r}): an alias is for a model")
        abilities = {
            pattern: _names("capabilities", words) for pattern, words in self.capabilities.items()
        }
        for words in abilities.values():
            if not set(words) <= set(_ABILITIES):
                raise ConfigurationError(
                    f"Models(capabilities={abilities!r}): write some of {', '.join(_ABILITIES)}"
                )
        object.__setattr__(self, "aliases", MappingProxyType(aliases))
        object.__setattr__(self, "capabilities", MappingProxyType(abilities))

    @property
    def holds(self) -> bool:
        """Whether it says anything of its own."""
        return self.allow is not None or bool(self.aliases) or bool(self.capabilities)

    def real(self, asked: str) -> str:
        """The model that a name stands for."""
        return self.aliases.get(asked, asked)

    def allows(self, asked: str) -> bool:
        """Whether callers may ask for it."""
        return self.allow is None or asked in self.aliases or matches(asked, self.allow)

    def allows_to(self, identity: Identity | None, asked: str) -> bool:
        """Whether this caller may; held to certain models, by this name or by the real one."""
        return self.allows(asked) and (
            identity is None or identity.may_use(asked) or identity.may_use(self.real(asked))
        )

    def restrict(self, identity: Identity | None) -> bool:
        """Whether there are models that this caller may not use."""
        return self.allow is not None or (identity is not None and identity.models is not None)

    def can(self, model: str, ability: Ability) -> bool:
        """Whether a model has an ability; so it is for those that nobody knows."""
        for table in (self.capabilities, _KNOWN):
            pattern = _best(model, table)
            if pattern is not None:
                return ability in table[pattern]
        return True

    def lacking(self, model: str) -> frozenset[Ability]:
        """What a model is known not to be able to do."""
        return frozenset(ability for ability in _ABILITIES if not self.can(model, ability))

    def having(self, ability: Ability) -> Iterator[str]:
        """Names that callers may ask for and that are known to have an ability."""
        for name in (*self.aliases, *(self.allow or ()), *self.capabilities, *_KNOWN):
            model = self.real(name)
            if self.allows(name.rstrip("*")) and self.can(model.rstrip("*"), ability):
                yield name


def matches(model: str, names: Iterable[str]) -> bool:
    """Whether a model is among names and patterns."""
    known = tuple(names)
    if model in known:
        return True
    # Some upstreams take a list in one text.
    return not _SEVERAL.search(model) and any(fnmatchcase(model, name) for name in known)


def models_of(given: Models | Iterable[str] | None) -> Models:
    """What was written for `models=`. Raises ConfigurationError."""
    return given if isinstance(given, Models) else Models(given)


def _best(model: str, table: Mapping[str, object]) -> str | None:
    if model in table:
        return model
    return max((name for name in table if fnmatchcase(model, name)), key=len, default=None)


def _names(name: str, given: Iterable[str]) -> tuple[str, ...]:
    names = () if isinstance(given, str) else tuple(given)
    if isinstance(given, str) or not all(isinstance(item, str) for item in names):
        raise ConfigurationError(f"Models({name}={given!r}): write a list of names")
    return names


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and not _SEVERAL.search(value)
