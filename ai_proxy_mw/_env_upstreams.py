"""`AI_PROXY_UPSTREAMS`, `AI_PROXY_FALLBACK` and `AI_PROXY_RETRY` as arguments of AIProxy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from ai_proxy_mw._config import Auth, Timeouts, Upstream
from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._retry import Retry

_KEYS = ("api_key", "api_key_env", "keys_env")
"""Where an upstream's key is said; one of them is enough."""

_AUTH = get_args(Auth)
_TIMEOUTS = tuple(Timeouts.__slots__)

# What is none of JSON's (functions, clients) can be said in the code only.
_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, "a text"),
    "base_url": (str, "a text"),
    "api_key": (str, "a text"),
    "api_key_env": (str, "a text"),
    "keys_env": (str, "a text"),
    "auth": (str, "a text"),
    "models": ((list, dict), "a list or an object"),
    "endpoints": (list, "a list"),
    "weight": ((int, float), "a number"),
    "priority": (int, "a whole number"),
    "query": (dict, "an object"),
    "headers": (dict, "an object"),
    "max_concurrent": (int, "a whole number"),
    "idempotency_key": (bool, "true or false"),
    "stream_usage": (bool, "true or false"),
    "timeouts": (dict, "an object"),
}


def upstreams(value: str, environ: Mapping[str, str]) -> list[Upstream]:
    """A JSON array of upstreams, or `@` and the path of a file that holds it.

    Keys may stand in other variables, which `environ` has. What is written is never shown in
    errors: it may be a key. Raises ConfigurationError.
    """
    items = _decoded(_file(value[1:].strip()) if value.startswith("@") else value.encode())
    if not isinstance(items, list) or not items:
        raise ConfigurationError("write a JSON array of objects, or @ and the path of its file")
    found = [_upstream(f"item {at}", item, environ) for at, item in enumerate(items, 1)]
    if len({each.name for each in found}) < len(found):
        raise ConfigurationError("give each a name of its own")
    return found


def fallback(value: str) -> dict[str, list[str]]:
    """`gpt-4.1=claude-sonnet-4.5|deepseek-v3.2;other=…`"""
    found: dict[str, list[str]] = {}
    for item in value.strip(" ;").split(";"):
        model, separator, rest = (part.strip() for part in item.partition("="))
        names = [name.strip() for name in rest.split("|")]
        if not separator or not model or not all(names) or model in found:
            raise ConfigurationError(f"{item.strip()!r}: write each once, as model=another|a-third")
        found[model] = names
    return found


def retry(value: str) -> Retry:
    """`attempts=3,total=30,unsafe=timeout|reset`"""
    return Retry(**each_once(value, _RETRY, lambda name: f"write it like {_LIKE[name]}"))


def each_once(
    value: str, readers: Mapping[str, Callable[[str], Any]], advice: Callable[[str], str]
) -> dict[str, Any]:
    """What a comma-separated list of `name=value` says, each name once. Raises ConfigurationError.

    advice: what to write for a name instead of a value that cannot be read.
    """
    said: dict[str, Any] = {}
    for item in value.split(","):
        name, _, text = (part.strip() for part in item.partition("="))
        read = readers.get(name)
        if read is None or name in said:
            raise ConfigurationError(f"{item.strip()!r}: write each of {', '.join(readers)} once")
        try:
            said[name] = read(text)
        except ValueError:
            raise ConfigurationError(f"{item.strip()!r}: {advice(name)}") from None
    return said


def _file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise ConfigurationError(f"{path!r} cannot be read: {why}") from None


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"not JSON: {error}") from None


def _upstream(where: str, item: object, environ: Mapping[str, str]) -> Upstream:
    if not isinstance(item, dict):
        raise ConfigurationError(f"{where} is no object")
    unknown = sorted(set(item) - set(_KINDS))
    if unknown:
        raise ConfigurationError(
            f"{where}: there is no member {unknown[0]!r}; write some of {', '.join(_KINDS)}"
        )
    if "base_url" not in item:
        raise ConfigurationError(f"{where}: base_url is missing")
    for name, member in item.items():
        kind, like = _KINDS[name]
        if not isinstance(member, kind) or (isinstance(member, bool) and kind is not bool):
            raise ConfigurationError(f"{where}: {name}: write {like}")
    if item.get("auth", "bearer") not in _AUTH:
        raise ConfigurationError(f"{where}: auth: write one of {', '.join(_AUTH)}")
    _check_texts(where, item)
    said = {name: member for name, member in item.items() if name not in _KEYS}
    try:
        if "timeouts" in said:
            said["timeouts"] = _timeouts(said["timeouts"])
        return Upstream(**said, **_keys(item, environ))
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _check_texts(where: str, item: Mapping[str, Any]) -> None:
    for name in ("headers", "query"):
        if not all(isinstance(each, str) for each in item.get(name, {}).values()):
            raise ConfigurationError(f"{where}: {name}: write texts only")


def _keys(item: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, Any]:
    ways = [name for name in _KEYS if name in item]
    if len(ways) > 1:
        raise ConfigurationError(f"give {ways[0]} or {ways[1]}, not both")
    if not ways:
        return {}
    if ways == ["api_key"]:
        return {"api_key": item["api_key"]}
    variable = item[ways[0]]
    value = environ.get(variable, "").strip()
    if not value:
        # Not shown: some write the key itself where its variable's name should stand.
        raise ConfigurationError(f"{ways[0]}: the variable that it names is not set")
    if ways == ["api_key_env"]:
        return {"api_key": value}
    return {"keys": [key.strip() for key in value.split(",")]}


def _timeouts(given: Mapping[str, Any]) -> Timeouts:
    unknown = sorted(set(given) - set(_TIMEOUTS))
    if unknown:
        raise ConfigurationError(
            f"timeouts: there is no {unknown[0]!r}; write some of {', '.join(_TIMEOUTS)}"
        )
    return Timeouts(**given)


def _words(text: str) -> list[int | str]:
    return [int(word) if word.isdecimal() else word for word in map(str.strip, text.split("|"))]


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError
    return text == "1"


def _share(text: str) -> float | None:
    return None if text == "none" else float(text)


_RETRY: dict[str, Callable[[str], Any]] = {
    "attempts": int,
    "total": float,
    "backoff": float,
    "cap": float,
    "on": _words,
    "unsafe": _words,
    "respect_retry_after": _switch,
    "budget": _share,
}
_LIKE = {
    "attempts": "attempts=3",
    "total": "total=30",
    "backoff": "backoff=0.5",
    "cap": "cap=30",
    "on": "on=connect|503",
    "unsafe": "unsafe=timeout|reset",
    "respect_retry_after": "respect_retry_after=1",
    "budget": "budget=0.1, or none",
}
