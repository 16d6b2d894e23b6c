"""What the endpoints that take uploads want, from the provider's published API reference.

Only what is known and wrong is refused: fields and words that are not here pass, so that what the
provider adds works at once. docs/validation-uploads.md shows the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ai_proxy_mw._media import MIB, Audio, Images

Judge = Callable[[str], str | None]
"""Says of a field's text what to write instead, or None where it is right."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:@+-]*")
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
_WHOLE = re.compile(r"-?[0-9]{1,15}")

# Formats of a picture that the edits and their masks are made of.
_EDITABLE = ("png", "jpeg", "webp")
_MOST_EDITED = 16
_MOST_PART = 64 * MIB
_MOST_TEXT = 128 * 1024  # 32,000 characters of at most four bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRule:
    """A file: `formats` as in `Images` and `Audio`, None for any; `max_bytes` of one.

    An `array` of up to `most` comes as `name[]`. `code` is that of a wrong format.
    """

    formats: tuple[str, ...] | None = None
    code: str = "invalid_value"
    max_bytes: int | None = None
    most: int = 1
    required: bool = False
    array: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldRule:
    """A text of at most `max_bytes`; without a judge it is counted and not held.

    An `array` may come several times, also as `name[]`.
    """

    judge: Judge | None
    max_bytes: int = 256
    required: bool = False
    array: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadRules:
    """What one endpoint takes. `max_total_bytes` is of all its files together."""

    files: Mapping[str, FileRule]
    fields: Mapping[str, FieldRule] = field(default_factory=lambda: MappingProxyType({}))
    max_total_bytes: int | None = None


def upload_rules(audio: Audio, images: Images) -> dict[str, UploadRules]:
    """The rules for each endpoint that takes uploads, under what the owner allows."""
    return {
        "POST /audio/transcriptions": UploadRules(
            files={"file": _sound(audio)}, fields={**_SPOKEN, **_TRANSCRIBED}
        ),
        "POST /audio/translations": UploadRules(files={"file": _sound(audio)}, fields=_SPOKEN),
        "POST /images/edits": UploadRules(
            files={
                "image": _pictures(images),
                "mask": _png(images),
                "markup": _png(images),
            },
            fields={**_DRAWN, **_EDITED},
            max_total_bytes=images.max_total_bytes,
        ),
        "POST /images/variations": UploadRules(
            files={"image": _png(images, required=True)}, fields=_DRAWN
        ),
        "POST /files": UploadRules(
            files={"file": FileRule(required=True)},
            fields={
                "purpose": FieldRule(judge=_word, required=True),
                "expires_after[anchor]": FieldRule(judge=_word),
                "expires_after[seconds]": FieldRule(judge=_whole(3600, 2_592_000)),
            },
        ),
        "POST /uploads/{id}/parts": UploadRules(
            files={"data": FileRule(max_bytes=_MOST_PART, required=True)}
        ),
    }


def _sound(audio: Audio) -> FileRule:
    return FileRule(
        formats=None if audio.formats is None else tuple(audio.formats),
        code="unsupported_audio_format",
        max_bytes=audio.max_bytes,
        required=True,
    )


def _pictures(images: Images) -> FileRule:
    return FileRule(
        formats=tuple(kind for kind in _EDITABLE if kind in images.formats),
        code="unsupported_image_format",
        max_bytes=images.max_bytes,
        most=min(_MOST_EDITED, images.max_count),
        required=True,
        array=True,
    )


def _png(images: Images, *, required: bool = False) -> FileRule:
    return FileRule(
        formats=("png",),
        code="unsupported_image_format",
        max_bytes=images.max_bytes,
        required=required,
    )


def _word(value: str) -> str | None:
    """Of the shape that all these values have; which there are changes with each new model."""
    return None if _WORD.fullmatch(value) else "write one word"


def _anything(value: str) -> str | None:  # noqa: ARG001 - told to who minds, and not judged
    return None


def _flag(value: str) -> str | None:
    return None if value in ("true", "false") else "write true or false"


def _number(least: float, most: float) -> Judge:
    def judge(value: str) -> str | None:
        right = _NUMBER.fullmatch(value) and least <= float(value) <= most
        return None if right else f"write a number from {least} to {most}"

    return judge


def _whole(least: int, most: int) -> Judge:
    def judge(value: str) -> str | None:
        right = _WHOLE.fullmatch(value) and least <= int(value) <= most
        return None if right else f"write a whole number from {least} to {most}"

    return judge


# Some upstreams take further models that may answer in the place of the first.
_FURTHER = {
    name: FieldRule(judge=_anything, max_bytes=4096, array=True) for name in ("fallbacks", "models")
}
_SPOKEN = {
    **_FURTHER,
    "model": FieldRule(judge=_word, required=True),
    "prompt": FieldRule(judge=None, max_bytes=_MOST_TEXT),
    "response_format": FieldRule(judge=_word),
    "temperature": FieldRule(judge=_number(0, 1)),
}
_TRANSCRIBED = {
    "include": FieldRule(judge=_word, array=True),
    "language": FieldRule(judge=_word),
    "languages": FieldRule(judge=_word, array=True),
    "stream": FieldRule(judge=_flag),
    "timestamp_granularities": FieldRule(judge=_word, array=True),
}
_DRAWN = {
    **_FURTHER,
    "model": FieldRule(judge=_word),
    "n": FieldRule(judge=_whole(1, 10)),
    "response_format": FieldRule(judge=_word),
    "size": FieldRule(judge=_word),
    "user": FieldRule(judge=None, max_bytes=1024),
}
_EDITED = {
    "background": FieldRule(judge=_word),
    "input_fidelity": FieldRule(judge=_word),
    "output_compression": FieldRule(judge=_whole(0, 100)),
    "output_format": FieldRule(judge=_word),
    "partial_images": FieldRule(judge=_whole(0, 3)),
    "prompt": FieldRule(judge=None, max_bytes=_MOST_TEXT, required=True),
    "quality": FieldRule(judge=_word),
    "stream": FieldRule(judge=_flag),
    "svg[model]": FieldRule(judge=_word),  # a second model, which runs too
}
