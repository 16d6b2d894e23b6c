"""What a request asks of which model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from ai_proxy_mw._errors import InvalidRequest, UnsupportedMediaType
from ai_proxy_mw.schema.members import members

if TYPE_CHECKING:
    from ai_proxy_mw._http import Headers

_NULL = msgspec.Raw(b"null")

_JSON = re.compile(r'\s*application/json\s*(?:;\s*charset="?utf-?8"?\s*)?;?\s*', re.IGNORECASE)

JSON_ENDPOINTS = frozenset(
    {
        "POST /audio/speech",
        "POST /chat/completions",
        "POST /completions",
        "POST /embeddings",
        "POST /images/generations",
        "POST /messages",
        "POST /messages/count_tokens",
        "POST /moderations",
        "POST /responses",
    }
)
"""Endpoints whose body is a JSON object that names a model."""

# They run no model, whatever their body says.
_NO_MODEL = frozenset(
    {
        "POST /batches/{id}/cancel",
        "POST /chat/completions/{id}",
        "POST /files",
        "POST /responses/{id}/cancel",
        "POST /uploads",
        "POST /uploads/{id}/cancel",
        "POST /uploads/{id}/complete",
        "POST /uploads/{id}/parts",
    }
)

# Some upstreams take further models that may answer in the place of the first.
_OTHER_MODELS = ("models", "fallbacks")


class _Tool(msgspec.Struct):
    """Some tools, such as the one that draws, run a model of their own."""

    model: Any = None


class Call:
    """A JSON request, decoded as far as the corridor must know it.

    `members` are the members of the body that are looked at, each as it came.
    """

    __slots__ = ("endpoint", "members", "model", "stream")

    def __init__(self, endpoint: str, body: bytes) -> None:
        self.endpoint = endpoint
        self.members = members(body)
        self.model: str | None = self._decoded("model", str)
        self.stream: bool = self._decoded("stream", bool) or False

    @property
    def other_models(self) -> list[str]:
        """Models that may answer in the place of `model`, as some upstreams take them."""
        named = [name for key in _OTHER_MODELS for name in self._decoded(key, list[str]) or []]
        tools = self._decoded("tools", list[_Tool]) or []
        return named + [str(tool.model) for tool in tools if tool.model is not None]

    def _decoded(self, name: str, kind: Any) -> Any:
        raw = self.members.get(name)
        if raw is None or raw == _NULL:
            return None
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"{name}: {error}.", param=name) from None

    def __repr__(self) -> str:
        return f"Call({self.endpoint} model={self.model!r} stream={self.stream})"


def runs_a_model(endpoint: str) -> bool:
    """Whether calls of an endpoint may run a model; so it is for those that we do not know."""
    return endpoint.startswith(("POST ", "PUT ", "PATCH ")) and endpoint not in _NO_MODEL


def check_media(headers: Headers) -> None:
    """Raises UnsupportedMediaType for a body that somebody may read as another thing than JSON."""
    for coding in headers.get_all("content-encoding"):
        if coding.strip().lower() != "identity":
            raise UnsupportedMediaType("Send the request body without a Content-Encoding.")
    types = headers.get_all("content-type")
    if len(types) > 1 or not all(_JSON.fullmatch(value) for value in types):
        raise UnsupportedMediaType("Send the request body as application/json, in UTF-8.")
