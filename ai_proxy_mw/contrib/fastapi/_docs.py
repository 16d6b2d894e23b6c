"""What the app's OpenAPI says of the endpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

_UPLOADS = frozenset(
    {
        "POST /audio/transcriptions",
        "POST /audio/translations",
        "POST /files",
        "POST /images/edits",
        "POST /images/variations",
        "POST /uploads/{id}/parts",
    }
)
_DOWNLOADS = frozenset({"POST /audio/speech", "GET /files/{id}/content"})
_STREAMS = frozenset(
    {
        "POST /audio/speech",
        "POST /audio/transcriptions",
        "POST /chat/completions",
        "POST /completions",
        "POST /images/edits",
        "POST /images/generations",
        "POST /messages",
        "POST /responses",
        "GET /responses/{id}",
    }
)

_JSON: dict[str, Any] = {"application/json": {"schema": {}}}
_BYTES: dict[str, Any] = {
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
}
_EVENTS: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}
_OBJECT = {"schema": {"type": "object", "additionalProperties": True}}


class AIProxyError(BaseModel):
    """What is wrong with a call, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None
    code: str | None


class AIProxyErrorBody(BaseModel):
    """The answer to a call that was refused or has failed."""

    error: AIProxyError


_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": AIProxyErrorBody, "description": "Nobody is signed in"},
    "4XX": {"model": AIProxyErrorBody, "description": "The call is refused"},
    "5XX": {"model": AIProxyErrorBody, "description": "The upstream or the proxy has failed"},
}


def named(method: str, path: str) -> str:
    """The route's name, of which FastAPI or the app makes the operation's id."""
    words = [word for word in path.split("/") if not word.startswith("{")]
    suffix = ["by_id"] if path.endswith("}") else []
    return re.sub(r"\W+", "_", "_".join([method.lower(), *filter(None, words), *suffix]))


def said_of(endpoint: str, parameters: Sequence[str]) -> dict[str, Any]:
    """The arguments of `add_api_route` that describe an endpoint."""
    method, path = endpoint.split()
    words = re.sub(r"\{.*?\}|[/_]", " ", path).split()
    return {
        "summary": " ".join(words).capitalize() + (" by id" if path.endswith("}") else ""),
        "description": f"Relayed to `{path}` of the AI provider.",
        "responses": {200: _answer(endpoint), **_REFUSALS},
        "openapi_extra": {
            **_parameters(parameters),
            **(_body(endpoint) if method in ("POST", "PUT", "PATCH") else {}),
        },
    }


def _answer(endpoint: str) -> dict[str, Any]:
    content = dict(_BYTES if endpoint in _DOWNLOADS else _JSON)
    if endpoint in _STREAMS:
        content |= _EVENTS
    return {"description": "What the provider answers", "content": content}


def _parameters(names: Sequence[str]) -> dict[str, Any]:
    if not names:
        return {}
    schema = {"type": "string"}
    return {
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": schema} for name in names
        ]
    }


def _body(endpoint: str) -> dict[str, Any]:
    kind = "multipart/form-data" if endpoint in _UPLOADS else "application/json"
    required = not endpoint.endswith("/cancel")
    return {"requestBody": {"required": required, "content": {kind: _OBJECT}}}
