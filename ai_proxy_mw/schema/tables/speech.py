"""Spoken text."""

from __future__ import annotations

from ai_proxy_mw.schema.spec import Fields, Number, Table, Text
from ai_proxy_mw.schema.tables.common import TEXT_OR_NULL, VOICE

FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm", "mulaw", "ogg")
"""The last two are Groq's."""

SPEECH = Table(
    endpoint="POST /audio/speech",
    source="OpenAI API reference, Audio, Create speech",
    body=Fields(
        fields={
            "model": Text(least=1),
            "input": Text(least=1, most=4096),
            "voice": VOICE,
            "instructions": TEXT_OR_NULL,
            "response_format": Text(choices=FORMATS, nullable=True),
            "speed": Number(least=0.25, most=4, nullable=True),
            "stream_format": Text(choices=("sse", "audio"), nullable=True),
        },
        needed=("model", "input", "voice"),
    ),
)
