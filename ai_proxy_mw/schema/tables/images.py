"""Generated images."""

from __future__ import annotations

from ai_proxy_mw.schema.spec import Fields, Table, Text, Whole
from ai_proxy_mw.schema.tables.common import FLAG_OR_NULL, JSON_OBJECT_OR_NULL, TEXT_OR_NULL

IMAGES = Table(
    endpoint="POST /images/generations",
    source="OpenAI API reference, Images, Create image",
    body=Fields(
        fields={
            "prompt": Text(least=1, most=32000),
            "background": TEXT_OR_NULL,
            "complexity": TEXT_OR_NULL,
            "frame_count": Whole(least=2, most=16, nullable=True),
            "frame_duration_ms": Whole(least=1, nullable=True),
            "model": Text(least=1, nullable=True),
            "moderation": TEXT_OR_NULL,
            "n": Whole(least=1, most=10, nullable=True),
            "output_compression": Whole(least=0, most=100, nullable=True),
            "output_format": TEXT_OR_NULL,
            "partial_images": Whole(least=0, most=3, nullable=True),
            "quality": TEXT_OR_NULL,
            "response_format": Text(choices=("url", "b64_json"), nullable=True),
            "safety_identifier": Text(most=128, nullable=True),
            "size": TEXT_OR_NULL,
            "stream": FLAG_OR_NULL,
            "style": TEXT_OR_NULL,
            "svg": JSON_OBJECT_OR_NULL,
            "user": TEXT_OR_NULL,
        },
        needed=("prompt",),
    ),
)
