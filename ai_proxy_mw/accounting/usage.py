"""What a call has used."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens, pictures and seconds of one call, in one meaning for all providers.

    input_tokens: all that went in, those read from and written to a prompt cache among them.
    output_tokens: all that came out, those of reasoning among them.
    cached_input_tokens, cache_write_tokens, audio_input_tokens, image_input_tokens: parts of what
        went in; reasoning_tokens, audio_output_tokens, image_output_tokens: of what came out.
    images: pictures that were made.
    seconds: of sound, where the provider counts by time.
    measured: whether the provider has said so; else it is our estimate.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    images: int = 0
    seconds: float = 0.0
    measured: bool = True
