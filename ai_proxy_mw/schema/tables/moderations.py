"""Moderations."""

from __future__ import annotations

from ai_proxy_mw.schema.spec import Either, Fields, ListOf, Table, Text, Variants
from ai_proxy_mw.schema.tables.chat_parts import IMAGE_URL
from ai_proxy_mw.schema.tables.common import TEXT_PART

MODERATIONS = Table(
    endpoint="POST /moderations",
    source="OpenAI API reference, Moderations, Create moderation",
    body=Fields(
        fields={
            "input": Either(
                kinds=(
                    Text(),
                    ListOf(item=Text(), least=1),
                    ListOf(
                        item=Variants(by="type", known={"text": TEXT_PART, "image_url": IMAGE_URL}),
                        least=1,
                    ),
                )
            ),
            "model": Text(least=1, nullable=True),
        },
        needed=("input",),
    ),
)
