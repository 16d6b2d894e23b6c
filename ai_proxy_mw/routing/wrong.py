"""Answers that say that all is well, and are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw._endpoints import DEFAULT_ENDPOINTS
from ai_proxy_mw.schema.call import runs_a_model

if TYPE_CHECKING:
    from ai_proxy_mw._http import Response

# Of an endpoint that the owner has added nobody knows whether an empty answer or a page is right.
_ANSWERS = frozenset(filter(runs_a_model, DEFAULT_ENDPOINTS))


def looks_wrong(response: Response, endpoint: str) -> bool:
    """Whether an endpoint that runs a model has answered 2xx with nothing, or with a page.

    For answers that are no event streams, when their body is `ready()`: it shows in the status,
    the head and whether the body has ended. Nothing is read.
    """
    if not 200 <= response.status <= 299 or endpoint not in _ANSWERS:
        return False
    return response.body.ended or any(map(_tells_of_none, response.headers))


def _tells_of_none(line: tuple[bytes, bytes]) -> bool:
    name, value = line
    if name == b"content-type":
        return value[:9].lower() == b"text/html"  # of a proxy on the way, or to sign in
    return name == b"content-length" and value == b"0"
