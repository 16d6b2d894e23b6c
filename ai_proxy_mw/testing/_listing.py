"""/models, /embeddings and /moderations."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

from ai_proxy_mw.testing._answer import Answer, json_answer
from ai_proxy_mw.testing._call import CREATED, JSON, Call, Refusal
from ai_proxy_mw.testing._reply import count_tokens, texts

_DIMENSIONS = 16
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def _model(name: str) -> JSON:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "fake"}


def list_models(call: Call) -> Answer:
    return json_answer({"object": "list", "data": [_model(name) for name in call.traits.models]})


def get_model(call: Call) -> Answer:
    if call.id not in call.traits.models:
        raise Refusal(
            f"The model '{call.id}' does not exist",
            status=404,
            code="model_not_found",
            param="model",
        )
    return json_answer(_model(call.id))


def embed(call: Call) -> Answer:
    call.required("model")
    given = call.required("input", (str, list))
    items = [given] if isinstance(given, str) or all(type(x) is int for x in given) else given
    size = call.number("dimensions", default=_DIMENSIONS)
    packed = call.data.get("encoding_format") == "base64"
    tokens = sum(count_tokens(item) or 1 for item in items)
    return json_answer(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": i, "embedding": _vector(item, size, packed)}
                for i, item in enumerate(items)
            ],
            "model": call.data["model"],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _vector(item: Any, size: int, packed: bool) -> list[float] | str:
    # Multiples of 1/128 are the same number as a float in JSON and as four bytes.
    noise = hashlib.shake_128(repr(item).encode()).digest(size)
    vector = [(byte - 128) / 128 for byte in noise]
    if not packed:
        return vector
    return base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()


def moderate(call: Call) -> Answer:
    """Flags what speaks of violence, by that word."""
    given = call.required("input", (str, list))
    items = [given] if isinstance(given, str) or _is_parts(given) else given
    return json_answer(
        {
            "id": f"modr-{call.key}",
            "model": call.data.get("model", "fake-moderation"),
            "results": [_judged(item) for item in items],
        }
    )


def _is_parts(given: list[Any]) -> bool:
    return any(isinstance(part, dict) for part in given)


def _judged(item: Any) -> JSON:
    flagged = any("violence" in text for text in texts(item))
    guilty = {"violence"} if flagged else set()
    return {
        "flagged": flagged,
        "categories": {name: name in guilty for name in _CATEGORIES},
        "category_scores": {name: 0.875 if name in guilty else 0.0 for name in _CATEGORIES},
        "category_applied_input_types": {
            name: ["text"] if name in guilty else [] for name in _CATEGORIES
        },
    }
