"""What a request asks of which model."""

from __future__ import annotations

from typing import Any

import msgspec

from ai_proxy_mw._errors import InvalidRequest, UnsupportedMediaType
from ai_proxy_mw.schema.members import members

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


class Call:
    """A JSON request, decoded as far as the corridor must know it.

    `members` are the members of the body, each as it came.
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
        return [model for name in _OTHER_MODELS for model in self._decoded(name, list[str]) or []]

    def _decoded(self, name: str, kind: Any) -> Any:
        raw = self.members.get(name)
        if raw is None or raw == b"null":
            return None
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{name}: {error}.", param=name) from None

    def __repr__(self) -> str:
        return f"Call({self.endpoint} model={self.model!r} stream={self.stream})"


def runs_a_model(endpoint: str) -> bool:
    """Whether calls of an endpoint may run a model; so it is for those that we do not know."""
    return endpoint.startswith(("POST ", "PUT ", "PATCH ")) and endpoint not in _NO_MODEL


def check_coding(content_encoding: str | None) -> None:
    """Raises UnsupportedMediaType for a compressed body, which cannot be judged."""
    if (content_encoding or "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("Send the request body without a Content-Encoding.")
