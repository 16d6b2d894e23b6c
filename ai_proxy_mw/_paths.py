"""Which calls are ours, read from the path the server saw."""

from __future__ import annotations

import re

from ai_proxy_mw._errors import ConfigurationError

# What different servers decode differently: / \ . ; % and control characters, encoded. An honest
# client has no reason to encode any of them in an API path.
_TRICK = re.compile(rb"%(?:2[fFeE5]|3[bB]|5[cC]|[01][0-9a-fA-F]|7[fF]|[89a-fA-F])")


def check_prefix(prefix: str) -> str:
    """The prefix itself; raises ConfigurationError for one that could never match."""
    if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", prefix):
        raise ConfigurationError(f"prefix={prefix!r}: write a path like '/v1', no slash at its end")
    return prefix


def below(prefix: str, path: str, root: str = "") -> str | None:
    """What follows the prefix in a decoded path, or None if the path is not under it.

    `root` is where the app is mounted (ASGI's root_path). Servers and frameworks differ on
    whether the path repeats it, so it is taken off only where it is there.
    """
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :]
    if not path.startswith(prefix):
        return None
    rest = path[len(prefix) :]
    return rest if not rest or rest[0] == "/" else None


def is_tricky(raw_path: bytes) -> bool:
    """Whether an undecoded path hides a character that could change which path it is."""
    return b"%" in raw_path and _TRICK.search(raw_path) is not None
