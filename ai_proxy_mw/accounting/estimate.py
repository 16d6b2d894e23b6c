"""What a call may use, before it is let in.

Text: a quarter of its characters. Pictures: OpenAI's guide to vision counts 85 tokens for low
detail, and for high detail 170 for each of at most 6 tiles of 512 pixels and 85 beside them, 1105
at most with 6; Anthropic's counts width * height / 750 of at most 1600. Sound: OpenAI counts 10
tokens a second, of which a base64 text of 8 kB a second (64 kbit/s) is taken to be one.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import msgspec

from ai_proxy_mw._errors import ConfigurationError

if TYPE_CHECKING:
    from ai_proxy_mw.schema.call import Call

DEFAULT_OUTPUT = 4096
"""Tokens that an answer may have where the call does not say."""

MOST_OUTPUT = 1_000_000
_MOST_TOKENS = 1_000_000_000
_LOW_DETAIL = 85
_PICTURE = 1105
_ANTHROPIC_PICTURE = 1600
_BYTES_A_TOKEN_OF_SOUND = 8000 * 4 // 3 // 10
_A_MESSAGE = 4  # tokens around each

_ANSWERS_NOTHING = ("POST /embeddings", "POST /moderations", "POST /messages/count_tokens")
_TEXTS = ("input", "instructions", "prompt", "response_format", "system", "text", "tools")
_MOST = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Estimate(msgspec.Struct, frozen=True):
    """Tokens that a call may put in and get out. Raises ConfigurationError."""

    input_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        for tokens in (self.input_tokens, self.output_tokens):
            if type(tokens) is not int or not 0 <= tokens <= _MOST_TOKENS:
                raise ConfigurationError(f"{self}: write whole numbers, 0 or more")


class _Part(msgspec.Struct):
    """A part of a message; what it does not know costs as text."""

    type: str = ""
    text: str = ""
    image_url: Any = None
    detail: str = ""
    input_audio: Any = None
    source: Any = None
    file: Any = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None


_messages = msgspec.json.Decoder(list[_Message])


def estimate(call: Call) -> Estimate:
    """The prompt, and the most that the call allows the answer."""
    tokens = 0
    for name, raw in call.members.items():
        if name == "messages" or (name == "input" and bytes(memoryview(raw)[:1]) == b"["):
            tokens += _of_messages(raw, _is_anthropic(call))
        elif name in _TEXTS:
            tokens += _quarter(len(memoryview(raw)))
    if call.endpoint in _ANSWERS_NOTHING:
        return Estimate(tokens, 0)
    return Estimate(tokens, _answer(call))


def _is_anthropic(call: Call) -> bool:
    return call.endpoint.startswith("POST /messages")


def _answer(call: Call) -> int:
    members = call.members
    most = 0
    for name in _MOST:
        if name in members:
            most = max(most, _whole(members[name]))
    times = _whole(members["n"]) if "n" in members else 1
    return min(MOST_OUTPUT, (most or DEFAULT_OUTPUT) * (times or 1))


def _of_messages(raw: msgspec.Raw, anthropic: bool) -> int:
    try:
        messages = _messages.decode(raw)
    except _BAD:
        return _quarter(len(memoryview(raw)))  # of a shape that we do not know
    tokens = 0
    for message in messages:
        tokens += _A_MESSAGE
        if isinstance(message.content, str):
            tokens += _quarter(len(message.content))
        else:
            tokens += sum(_of_part(part, anthropic) for part in message.content or ())
    return tokens


def _of_part(part: _Part, anthropic: bool) -> int:
    tokens = _quarter(len(part.text))
    if part.image_url is not None:
        inner = part.image_url.get("detail") if isinstance(part.image_url, dict) else None
        tokens += _LOW_DETAIL if "low" in (inner, part.detail) else _PICTURE
    if part.source is not None:
        tokens += _ANTHROPIC_PICTURE if anthropic else _PICTURE
    if part.input_audio is not None:
        data = part.input_audio.get("data") if isinstance(part.input_audio, dict) else None
        tokens += (len(data) if isinstance(data, str) else 0) // _BYTES_A_TOKEN_OF_SOUND + 1
    if part.file is not None:
        tokens += _quarter(len(str(part.file)))
    return tokens


def _quarter(characters: int) -> int:
    return -(-characters // 4)


def _whole(raw: msgspec.Raw) -> int:
    """A number of at least 1, at most MOST_OUTPUT; 0 for what is none: others shall refuse it.

    Also where it is written as `1e3`, `1000.0` or a text: some upstreams take it for what it says.
    """
    try:
        number = float(bytes(raw).strip(b'"'))
    except ValueError:
        return 0
    return ceil(min(number, MOST_OUTPUT)) if number >= 1 else 0
