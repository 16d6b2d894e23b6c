"""Whether the sounds of a request are such as its owner lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.data_url import is_data_url
from ai_proxy_mw.schema.found import Found, base64_of, data_url_of, essence
from ai_proxy_mw.schema.sniffing.kind import kind_of
from ai_proxy_mw.schema.sniffing.sounds import check_sound
from ai_proxy_mw.schema.sniffing.source import Broken, Source

if TYPE_CHECKING:
    from ai_proxy_mw._media import Audio

# What the formats are called, as names of formats and behind the slash of media types.
_NAMES = {
    "aac": "aac", "flac": "flac", "m4a": "m4a", "mp3": "mp3", "mp4": "m4a", "mpeg": "mp3",
    "mpga": "mp3", "oga": "ogg", "ogg": "ogg", "opus": "opus", "vnd.wave": "wav", "wav": "wav",
    "wave": "wav", "webm": "webm", "x-aac": "aac", "x-flac": "flac", "x-m4a": "m4a",
    "x-wav": "wav",
}  # fmt: skip


class Sounds:
    """Those of one request."""

    def __init__(self, audio: Audio) -> None:
        self._audio = audio
        self._count = 0

    def judge(self, found: Found) -> None:
        """Look at one more. Raises InvalidRequest."""
        self._count += 1
        if self._count > self._audio.max_count:
            message = f"The request has more than {self._audio.max_count} sounds."
            raise InvalidRequest(message, param=found.param, code="too_many_audio")
        text, declared = found.value, found.declared
        if is_data_url(text):
            media_type, text = data_url_of(found, "sound", "invalid_audio")
            declared = declared or media_type or None
        judge_sound(base64_of(text, "sound", found.param), declared, self._audio, found.param)


def judge_sound(source: Source, declared: str | None, audio: Audio, param: str) -> str:
    """Look at one sound by itself; gives its format as in `Audio.formats`.

    declared: a format (`mp3`) or media type (`audio/mpeg`); None where nothing is said of it.

    Raises InvalidRequest with that `param`.
    """
    name = None if declared is None else _NAMES.get(essence(declared).removeprefix("audio/"), "")
    if name is not None and not _is_allowed(name, audio):
        wanted = ", ".join(audio.formats or ())
        message = f"The sound is declared as a format that is not taken here: send {wanted}."
        raise InvalidRequest(message, param=param, code="unsupported_audio_format")
    if source.size > audio.max_bytes:
        message = f"The sound is larger than {audio.max_bytes} bytes."
        raise InvalidRequest(message, param=param, code="audio_too_large")
    kind = kind_of(source)
    kind = _NAMES.get(kind, kind)
    if audio.formats is None:
        return kind
    _check_format(kind, name, audio, param)
    try:
        check_sound(kind, source)
    except Broken as error:
        message = f"The sound cannot be read: it {error}."
        raise InvalidRequest(message, param=param, code="invalid_audio") from None
    return kind


def _check_format(kind: str, name: str | None, audio: Audio, param: str) -> None:
    if kind == "unknown":
        message = "The sound is of no format known here."
        raise InvalidRequest(message, param=param, code="invalid_audio")
    # Opus comes in Ogg: who says only that says nothing wrong.
    if name not in (None, kind) and (name, kind) != ("ogg", "opus"):
        message = f"The sound is declared as {name}, but its data are {kind}."
        raise InvalidRequest(message, param=param, code="audio_format_mismatch")
    if not _is_allowed(kind, audio):
        wanted = ", ".join(audio.formats or ())
        message = f"The sound is of the format {kind}, which is not taken: send {wanted}."
        raise InvalidRequest(message, param=param, code="unsupported_audio_format")


def _is_allowed(kind: str, audio: Audio) -> bool:
    formats = audio.formats
    return formats is None or kind in formats or (kind == "opus" and "ogg" in formats)
