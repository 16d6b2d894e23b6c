"""Which reader finds the usage of which answer."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Protocol

from ai_proxy_mw.accounting.inflating import WINDOWS, InflatingReader
from ai_proxy_mw.accounting.json_reader import JSONReader, PictureStreamReader
from ai_proxy_mw.accounting.reported import from_anthropic, from_openai
from ai_proxy_mw.accounting.stream_reader import (
    MessageStreamReader,
    StreamReader,
    Text,
    at_top,
    in_response,
)
from ai_proxy_mw.accounting.usage import Usage
from ai_proxy_mw.schema.call import runs_a_model

if TYPE_CHECKING:
    from collections.abc import Callable

_MESSAGES = "POST /messages"
_PICTURES = frozenset({"POST /images/edits", "POST /images/generations", "POST /images/variations"})
_SOUND = frozenset({"POST /audio/transcriptions", "POST /audio/translations"})

# Counting tokens is free (Anthropic, "Token counting": pricing and rate limits).
_FREE = frozenset({"POST /messages/count_tokens"})

_delta = Text("delta")
_words = {
    "POST /audio/transcriptions": _delta,
    "POST /audio/translations": _delta,
    "POST /chat/completions": Text(
        "content", "reasoning_content", "reasoning", "arguments", "refusal"
    ),
    "POST /completions": Text("text"),
    "POST /messages": Text("text", "thinking", "partial_json"),
    "POST /responses": _delta,
}
"""Endpoints whose answers are words, and how those are found in a stream."""

_OPAQUE = ("application/octet-stream", "application/zip", "audio/", "image/", "video/")


class UsageReader(Protocol):
    """Watches an answer and finds out what it has used. Neither method raises."""

    @property
    def has_said(self) -> bool:
        """Whether what has passed holds a word of the answer, or may do so."""
        ...

    def chunk(self, data: bytes) -> None: ...

    def usage(self) -> Usage | None:
        """What was used: reported, or estimated (`measured` is then false), or None: unknown."""


class _Known:
    """For answers whose bytes say nothing."""

    __slots__ = ("_usage",)

    def __init__(self, usage: Usage | None) -> None:
        self._usage = usage

    has_said = True

    def chunk(self, data: bytes) -> None:
        """Nothing to learn."""

    def usage(self) -> Usage | None:
        return self._usage


def reader_for(
    endpoint: str, status: int, content_type: str | None, content_encoding: str | None
) -> UsageReader:
    """The reader for an answer with this head; `endpoint` as the allow-list writes it.

    Errors, answers that run no model (a stored response that is fetched again has been paid) and
    codings that we cannot take off are not read: their usage is None.
    """
    if endpoint in _FREE:
        return _Known(Usage(0, 0))
    if status >= 400:
        return _Known(None)
    return _maker(endpoint, content_type or "", content_encoding or "identity")()


@lru_cache(maxsize=256)  # an upstream writes few heads
def _maker(endpoint: str, content_type: str, content_encoding: str) -> Callable[[], UsageReader]:
    kind = content_type.partition(";")[0].strip().lower()
    if not runs_a_model(endpoint) or kind.startswith(_OPAQUE):
        return partial(_Known, None)
    coding = content_encoding.strip().lower()
    make = _stream(endpoint) if kind == "text/event-stream" else _json(endpoint)
    if coding == "identity":
        return make
    window = WINDOWS.get(coding)
    return partial(_Known, None) if window is None else lambda: InflatingReader(make(), window)


def _stream(endpoint: str) -> Callable[[], UsageReader]:
    words = _words.get(endpoint)
    if endpoint in _PICTURES:
        return partial(PictureStreamReader, from_openai)
    if endpoint == _MESSAGES:
        assert words is not None
        return partial(MessageStreamReader, words)
    find: Callable[[bytes], object] = in_response if endpoint == "POST /responses" else at_top
    return partial(StreamReader, find, from_openai, words)


def _json(endpoint: str) -> Callable[[], UsageReader]:
    return partial(
        JSONReader,
        from_anthropic if endpoint == _MESSAGES else from_openai,
        text=endpoint in _words,
        pictures=endpoint in _PICTURES,
        sound=endpoint in _SOUND,
    )
