"""By what else than its key an entry can be purged."""

from __future__ import annotations

import hashlib
from typing import Literal

Kind = Literal["subject", "endpoint", "model"]

_LETTERS: dict[Kind, str] = {"subject": "s", "endpoint": "e", "model": "m"}


def tag_of(kind: Kind, text: str) -> str:
    """A short name for whatever text. Stores then hold no names of people, either."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_LETTERS[kind]}:{digest[:24]}"
