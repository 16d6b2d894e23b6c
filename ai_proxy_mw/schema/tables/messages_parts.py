"""Blocks of what a message of the Messages API says."""

from __future__ import annotations

from ai_proxy_mw.schema.spec import Either, Fields, Kind, ListOf, Media, Text, Variants
from ai_proxy_mw.schema.tables.common import (
    FLAG_OR_NULL,
    ID,
    JSON_OBJECT,
    JSON_OBJECT_OR_NULL,
    TEXT_OR_NULL,
)

_CACHE = Variants(
    by="type", known={"ephemeral": Fields(fields={"ttl": TEXT_OR_NULL})}, nullable=True
)

CACHED: dict[str, Kind] = {"cache_control": _CACHE}


def _block(needed: str, **fields: Kind) -> Fields:
    return Fields(fields={**fields, **CACHED}, needed=tuple(needed.split()))


def _blocks(known: dict[str, Fields]) -> Kind:
    return Either(kinds=(Text(), ListOf(item=Variants(by="type", known=known))))


_FILE = Fields(fields={"file_id": ID}, needed=("file_id",))

_IMAGE_SOURCE = Variants(
    by="type",
    known={
        "base64": Fields(
            fields={
                "media_type": Text(choices=("image/jpeg", "image/png", "image/gif", "image/webp")),
                "data": Media(media="image_data", declared="media_type"),
            },
            needed=("media_type", "data"),
        ),
        "url": Fields(fields={"url": Media(media="image_link")}, needed=("url",)),
        "file": _FILE,
    },
)

TEXT = _block("text", text=Text(), citations=ListOf(item=JSON_OBJECT, nullable=True))

IMAGE = _block("source", source=_IMAGE_SOURCE, transformations=JSON_OBJECT_OR_NULL)

DOCUMENT = _block(
    "source",
    source=Variants(
        by="type",
        known={
            "base64": Fields(
                fields={
                    "media_type": Text(choices=("application/pdf",)),
                    "data": Media(media="file"),
                },
                needed=("media_type", "data"),
            ),
            "url": Fields(fields={"url": Media(media="file_link")}, needed=("url",)),
            "text": Fields(
                fields={"media_type": Text(choices=("text/plain",)), "data": Text()},
                needed=("media_type", "data"),
            ),
            "content": Fields(
                fields={"content": _blocks({"text": TEXT, "image": IMAGE})}, needed=("content",)
            ),
            "file": _FILE,
        },
    ),
    title=TEXT_OR_NULL,
    context=TEXT_OR_NULL,
    citations=Fields(fields={"enabled": FLAG_OR_NULL}, nullable=True),
)

SEARCH_RESULT = _block(
    "content source title",
    content=ListOf(item=Variants(by="type", known={"text": TEXT})),
    source=Text(),
    title=Text(),
    citations=Fields(fields={"enabled": FLAG_OR_NULL}, nullable=True),
)

_TOOL_RESULT = _block(
    "tool_use_id",
    tool_use_id=ID,
    content=_blocks(
        {"text": TEXT, "image": IMAGE, "document": DOCUMENT, "search_result": SEARCH_RESULT}
    ),
    is_error=FLAG_OR_NULL,
)

_FETCHED = Variants(
    by="type",
    known={
        "web_fetch_result": Fields(
            fields={
                "url": Text(),
                "content": Variants(by="type", known={"document": DOCUMENT}),
                "retrieved_at": TEXT_OR_NULL,
            },
            needed=("url", "content"),
        )
    },
)

_USE = {"id": ID, "name": Text(least=1, most=200), "input": JSON_OBJECT}

TEXTS = _blocks({"text": TEXT})

CONTENT = _blocks(
    {
        "text": TEXT,
        "image": IMAGE,
        "document": DOCUMENT,
        "search_result": SEARCH_RESULT,
        "tool_use": _block("id name input", **_USE, caller=JSON_OBJECT_OR_NULL),
        "tool_result": _TOOL_RESULT,
        "thinking": Fields(
            fields={"thinking": Text(), "signature": TEXT_OR_NULL}, needed=("thinking",)
        ),
        "redacted_thinking": Fields(fields={"data": Text()}, needed=("data",)),
        "server_tool_use": _block("id name input", **_USE, caller=JSON_OBJECT_OR_NULL),
        "web_search_tool_result": _block(
            "tool_use_id content",
            tool_use_id=ID,
            content=Either(kinds=(ListOf(item=JSON_OBJECT), JSON_OBJECT)),
        ),
        "web_fetch_tool_result": _block("tool_use_id content", tool_use_id=ID, content=_FETCHED),
        "container_upload": _block("file_id", file_id=ID),
    }
)
