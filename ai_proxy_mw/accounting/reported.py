"""The usage objects of the providers, as they report them, turned into Usage.

The names are those of the OpenAI and Anthropic API references, read as the types of their Python
SDKs (openai 3.54, anthropic 2.12). A number that is missing or null is 0; one that is wrong (a
negative, a fraction, a truth value, more than any model takes) makes the whole not reported,
except among the details, where it is left out.
"""

from __future__ import annotations

from typing import Any

from ai_proxy_mw.accounting.usage import Usage

_MOST = 1_000_000_000
_MOST_SECONDS = 10_000_000.0

_CHAT = ("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")
_INNER = {
    "cached_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "audio_tokens": "audio_input_tokens",
    "image_tokens": "image_input_tokens",
}
_OUTER = {
    "reasoning_tokens": "reasoning_tokens",
    "audio_tokens": "audio_output_tokens",
    "image_tokens": "image_output_tokens",
}
_NEWER = ("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details")


def from_openai(raw: Any) -> Usage | None:
    """Usage of chat, completions, embeddings, responses, images and audio; None if not usable."""
    if not isinstance(raw, dict):
        return None
    names = _CHAT if "prompt_tokens" in raw or "completion_tokens" in raw else _NEWER
    went_in, came_out = raw.get(names[0]), raw.get(names[1])
    if went_in is None and came_out is None:
        return from_duration(raw.get("seconds")) if raw.get("type") == "duration" else None
    tokens_in, tokens_out = _count(went_in), _count(came_out)
    if tokens_in is None or tokens_out is None:
        return None
    if names is _CHAT:
        # Gemini's OpenAI surface and xAI leave reasoning out of completion_tokens, but not out of
        # total_tokens, and charge for it; at OpenAI the two sums are the same.
        tokens_out = max(tokens_out, (_count(raw.get("total_tokens")) or 0) - tokens_in)
    inner = raw.get(names[2])
    if inner is None:
        inner = raw.get("input_token_details")  # so it is called for transcriptions
    parts: dict[str, Any] = _parts(inner, _INNER, tokens_in)
    parts.update(_parts(raw.get(names[3]), _OUTER, tokens_out))
    if not parts.get("cached_input_tokens"):
        parts["cached_input_tokens"] = _part(raw, "prompt_cache_hit_tokens", tokens_in)  # DeepSeek
    return Usage(tokens_in, tokens_out, **parts)


def from_anthropic(raw: Any) -> Usage | None:
    """Usage of messages, whose input_tokens do not hold what the prompt cache read or wrote."""
    if not isinstance(raw, dict) or (raw.get("input_tokens"), raw.get("output_tokens")) == (
        None,
        None,
    ):
        return None
    plain, tokens_out = _count(raw.get("input_tokens")), _count(raw.get("output_tokens"))
    read = _count(raw.get("cache_read_input_tokens"))
    written = _count(raw.get("cache_creation_input_tokens"))
    if plain is None or tokens_out is None or read is None or written is None:
        return None
    return Usage(
        plain + read + written,
        tokens_out,
        cached_input_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=_part(raw.get("output_tokens_details"), "thinking_tokens", tokens_out),
    )


def from_duration(seconds: Any) -> Usage | None:
    """Usage of models that are paid by the length of what they listen to, in seconds."""
    if type(seconds) not in (int, float) or not 0 <= seconds <= _MOST_SECONDS:
        return None
    return Usage(0, 0, seconds=float(seconds))


def _count(value: Any) -> int | None:
    """A number of tokens; None if it is none."""
    if value is None:
        return 0
    # A bool is an int; a float such as 12.0 is nothing that a provider sends.
    return value if type(value) is int and 0 <= value <= _MOST else None


def _parts(details: Any, names: dict[str, str], whole: int) -> dict[str, int]:
    """Those of the details that are there, by our names."""
    if not isinstance(details, dict):
        return {}
    return {ours: _part(details, name, whole) for name, ours in names.items() if name in details}


def _part(details: Any, name: str, whole: int) -> int:
    """One of the details, which is never more than the whole."""
    if not isinstance(details, dict):
        return 0
    return min(_count(details.get(name)) or 0, whole)
