"""Base URLs as the providers' own SDKs take them."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.upstream.base import Origin

MODEL = "{model}"
"""Stands in the path of a base URL for the model that is asked, as Azure's deployments do."""

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@+,=-]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Place(NamedTuple):
    """Where an upstream is; `path` has no slash at its end."""

    origin: Origin
    path: str


def place_of(base_url: str) -> Place:
    """The parts of a base URL. Raises ConfigurationError for one that cannot be used as it is."""
    parts = _split(base_url)
    assert parts.hostname is not None
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return Place(Origin(parts.scheme, parts.hostname, port), parts.path.rstrip("/"))


def authority(origin: Origin) -> str:
    """What the `Host` header says (RFC 9110, section 7.2)."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return host if _DEFAULT_PORTS[origin.scheme] == origin.port else f"{host}:{origin.port}"


def can_stand_in_path(model: str) -> bool:
    """Whether a model's name is one segment to any server, decoded or not."""
    return _SEGMENT.fullmatch(model) is not None


def _split(base_url: str) -> SplitResult:
    if not isinstance(base_url, str):
        raise ConfigurationError(f"base_url={base_url!r}: write a URL")
    if "@" in base_url:
        # Not shown: the password would end in a log.
        raise ConfigurationError("base_url must not hold a user or password; use api_key=")
    # The rest may hold a key that was put there by mistake.
    shown = f"base_url={re.split(r'[?#]', base_url)[0]!r}"
    try:
        parts = urlsplit(base_url)
        port_is_sane = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ConfigurationError(f"{shown}: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or not port_is_sane:
        raise ConfigurationError(f"{shown}: write a whole URL like 'https://api.openai.com/v1'")
    if parts.query or parts.fragment:
        raise ConfigurationError(f"{shown}: a base URL has no query and no fragment; use query=")
    if not re.fullmatch(r"[!-~]*", base_url):
        raise ConfigurationError(f"{shown}: use ASCII; encode other characters as %XX or punycode")
    if set(re.findall(r"[^/]*[{}][^/]*", base_url)) - {MODEL} or MODEL in parts.netloc:
        raise ConfigurationError(f"{shown}: braces stand for the model only: '.../{MODEL}/...'")
    return parts
