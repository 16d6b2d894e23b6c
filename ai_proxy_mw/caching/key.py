"""Under which key an answer is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

_VERSION = "1"
"""Another one whenever the same parts shall give another key."""


class Scope(NamedTuple):
    """Whose entries they are.

    kind: "subject" for the caller's own, "group" for those of `Identity.scope`, "shared" for
        everybody's, "own" for what the owner's function has returned.
    name: of the subject, of the group, or what was returned; empty where it is everybody.
    """

    kind: Literal["subject", "group", "shared", "own"]
    name: str


def cache_key(
    scope: Scope,
    *,
    app: str,
    upstream: str,
    endpoint: str,
    path: str,
    query: bytes,
    question: bytes,
    vary: Sequence[tuple[str, str]] = (),
) -> str:
    """One key for all who ask the same in one scope, and for nobody else.

    question: the canonical form of the body or a digest of it, empty where there is none.
    vary: names and values of what else makes a difference, in their order.
    """
    kind, name = scope
    front = _remembered(_VERSION, kind)
    place = _remembered(app, upstream, endpoint, path)
    varying = _varying(vary) if vary else _NOTHING_VARIES
    head = f"{front}{len(name)}:{name}{place}{varying}".encode("utf-8", "surrogatepass")
    joined = b"%d:%b%d:%b%b" % (len(head), head, len(query), query, question)
    return app_prefix(app) + hashlib.sha256(joined).hexdigest()


def _parts(*texts: str) -> str:
    """One text. The length before each part says where it ends, whatever is in it."""
    return "".join([f"{len(text)}:{text}" for text in texts])


def _varying(vary: Sequence[tuple[str, str]]) -> str:
    return _parts(str(2 * len(vary)), *[part for pair in vary for part in pair])


# Calls differ in whose they are and what they ask, and seldom in where it is asked.
_remembered = lru_cache(maxsize=64)(_parts)
_NOTHING_VARIES = _varying(())


@lru_cache(maxsize=64)
def app_prefix(app: str) -> str:
    """How the keys of an app begin."""
    digest = hashlib.sha256(app.encode("utf-8", "surrogatepass")).hexdigest()
    return f"e:{digest[:8]}:"
