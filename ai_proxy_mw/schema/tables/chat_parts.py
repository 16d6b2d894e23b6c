"""Parts of what a message of a chat says."""

from __future__ import annotations

from ai_proxy_mw.schema.spec import (
    Either,
    Fields,
    Get,
    Kind,
    ListOf,
    Media,
    Problem,
    Text,
    Variants,
)
from ai_proxy_mw.schema.tables.common import (
    DETAIL,
    ID,
    JSON_OBJECT_OR_NULL,
    TEXT_OR_NULL,
    TEXT_PART,
    missing_one,
)

AUDIO_FORMATS = ("wav", "mp3", "aac", "aiff", "flac", "m4a", "ogg", "pcm16", "pcm24")
"""The first two are those of OpenAI's models; OpenRouter lists all of them."""

# Some upstreams (Mistral) take the link itself in the place of the object.
IMAGE_URL = Fields(
    fields={
        "image_url": Either(
            kinds=(
                Fields(fields={"url": Media(media="image"), "detail": DETAIL}, needed=("url",)),
                Media(media="image"),
            )
        ),
        "prompt_cache_breakpoint": JSON_OBJECT_OR_NULL,
    },
    needed=("image_url",),
)

INPUT_AUDIO = Fields(
    fields={
        "input_audio": Either(
            kinds=(
                Fields(
                    fields={
                        "data": Media(media="audio", declared="format"),
                        "format": Text(choices=AUDIO_FORMATS),
                    },
                    needed=("data", "format"),
                ),
                Media(media="audio"),
            )
        ),
        "prompt_cache_breakpoint": JSON_OBJECT_OR_NULL,
    },
    needed=("input_audio",),
)


def _file_or_id(get: Get) -> Problem | None:
    """One of `file_data` and `file_id` must be there."""
    if get("file_data") is None and get("file_id") is None:
        return missing_one("file_data", "A file needs file_data or file_id.")
    return None


def _file(get: Get) -> Problem | None:
    """`file`, or `file_id`, must be there."""
    if get("file") is None and get("file_id") is None:
        return missing_one("file", "A part of type 'file' needs the member 'file'.")
    return None


# Mistral's files are named beside the type.
FILE = Fields(
    fields={
        "file": Fields(
            fields={
                "file_data": Media(media="file", nullable=True),
                "file_id": Text(least=1, nullable=True),
                "filename": Text(nullable=True),
            },
            rule=_file_or_id,
        ),
        "file_id": ID,
        "prompt_cache_breakpoint": JSON_OBJECT_OR_NULL,
    },
    rule=_file,
)

VIDEO_URL = Fields(
    fields={"video_url": Fields(fields={"url": Text(least=1)}, needed=("url",))},
    needed=("video_url",),
)

REFUSAL = Fields(fields={"refusal": Text()}, needed=("refusal",))

_PARTS = {
    "text": TEXT_PART,
    "image_url": IMAGE_URL,
    "input_audio": INPUT_AUDIO,
    "file": FILE,
    "video_url": VIDEO_URL,
}

_MEDIA = ("image_url", "input_audio", "file", "video_url")


def _content(parts: dict[str, Fields], *elsewhere: str, nullable: bool = False) -> Kind:
    part = Variants(by="type", known=parts, elsewhere=elsewhere)
    return Either(kinds=(Text(), ListOf(item=part, least=1)), nullable=nullable)


TEXTS = _content({"text": TEXT_PART}, *_MEDIA)
"""Pictures, sounds and files have no place here, by the references of all who publish one."""

SAID = _content({"text": TEXT_PART, "refusal": REFUSAL}, *_MEDIA, nullable=True)
"""What a model has said."""

ANY_PARTS = _content(_PARTS)
"""What a user says. What tools say, too: OpenAI takes text only, other upstreams also pictures."""

NAME = TEXT_OR_NULL
