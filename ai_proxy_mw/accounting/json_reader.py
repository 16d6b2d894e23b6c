"""Reads the usage that a JSON answer reports, without holding more than its tail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ai_proxy_mw.accounting.reported import from_duration
from ai_proxy_mw.accounting.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

KEEP = 1 << 20
"""An answer up to this size is kept whole, in bytes."""

TAIL = 64 * 1024
"""Of a longer one at least this much of its end."""

_ENVELOPE = 300  # bytes of an answer that are not the model's text, more or less
_TRIES = 8
_PICTURE_KEYS = (b'"b64_json":', b'"url":')
_FINAL_PICTURE = (b'"image_generation.completed"', b'"image_edit.completed"')
_OVERLAP = max(map(len, (*_PICTURE_KEYS, *_FINAL_PICTURE))) - 1


class _Answer(msgspec.Struct):
    usage: Any = None
    duration: Any = None


_answer = msgspec.json.Decoder(_Answer)


def decoded(decoder: msgspec.json.Decoder[Any], data: bytes | bytearray) -> Any:
    """What the bytes say; None where they are not what the decoder wants."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class JSONReader:
    """Usage of an answer that is one JSON object.

    The usage is looked for from the end: an object is cut off at a key `"usage"` and decoded as
    `{"usage": ...}`. That succeeds only where the key belongs to the outermost object, since
    one further in has braces left over; and no text can hold such a key, as its quotes would be
    escaped. So a model, whose text or tool arguments may say anything, cannot report for the
    provider. Where only the tail of a long answer is kept, a usage that stands before it is not
    found, and an answer that was cut reports nothing.

    text: whether what is not reported is estimated from the size of the answer.
    pictures: whether the pictures in it are counted.
    sound: whether the `duration` of a transcription counts where it has no usage (verbose_json).
    """

    __slots__ = ("_normal", "_pictures", "_size", "_sound", "_text", "_whole", "_written")

    has_said = True

    def __init__(
        self,
        normal: Callable[[Any], Usage | None],
        *,
        text: bool,
        pictures: bool = False,
        sound: bool = False,
    ) -> None:
        self._normal = normal
        self._written = text
        self._pictures = Pictures(_PICTURE_KEYS) if pictures else None
        self._sound = sound
        self._text: bytes | bytearray = b""
        self._whole = True
        self._size = 0

    def chunk(self, data: bytes) -> None:
        self._size += len(data)
        if self._pictures is not None:
            self._pictures.chunk(data)
        if not self._text and len(data) <= KEEP:
            self._text = data  # the whole answer, more often than not: no copy
            return
        text = self._text
        self._text = text if isinstance(text, bytearray) else bytearray(text)
        self._text += data[-KEEP:]
        if self._size > KEEP:
            self._whole = False
            if len(self._text) > KEEP:
                del self._text[:-TAIL]

    def usage(self) -> Usage | None:
        """What was reported; or an estimate; or None where nothing can be said."""
        usage = self._reported()
        images = 0 if self._pictures is None else self._pictures.most()
        if usage is not None:
            return msgspec.structs.replace(usage, images=images) if images else usage
        if images:
            return Usage(0, 0, images=images, measured=False)
        if self._written and self._size:
            return Usage(0, -(-max(0, self._size - _ENVELOPE) // 4), measured=False)
        return None

    def _reported(self) -> Usage | None:
        usage = self._normal(usage_at_the_end(self._text))
        if usage is None and self._whole:
            answer = decoded(_answer, self._text)
            if answer is not None:
                usage = self._normal(answer.usage)
                if usage is None and self._sound:
                    usage = from_duration(answer.duration)
        return usage


def usage_at_the_end(text: bytes | bytearray) -> Any:
    """The value of the last `"usage"` of the outermost object that ends with the text."""
    end = len(text)
    for _ in range(_TRIES):
        end = text.rfind(b'"usage"', 0, end)
        if end < 0:
            break
        # After a backslash the quote is part of a longer name.
        if not text.endswith(b"\\", 0, end):
            answer = decoded(_answer, b"{" + text[end:])
            if answer is not None:
                return answer.usage
    return None


class PictureStreamReader:
    """Usage of a stream of pictures: events that may each be larger than anything that is kept.

    The last event tells the usage, at its end.
    """

    __slots__ = ("_normal", "_pictures", "_text")

    has_said = True

    def __init__(self, normal: Callable[[Any], Usage | None]) -> None:
        self._normal = normal
        self._pictures = Pictures(_FINAL_PICTURE)
        self._text = bytearray()

    def chunk(self, data: bytes) -> None:
        self._pictures.chunk(data)
        self._text += data[-TAIL:]
        if len(self._text) > 2 * TAIL:
            del self._text[:-TAIL]

    def usage(self) -> Usage | None:
        images = self._pictures.most()
        for line in reversed(self._text.splitlines()):
            usage = self._normal(usage_at_the_end(line))
            if usage is not None:
                return msgspec.structs.replace(usage, images=images)
        return Usage(0, 0, images=images, measured=False) if images else None


class Pictures:
    """Counts how often each of some byte strings has passed, also where a piece ends in one."""

    __slots__ = ("_counts", "_last", "_wanted")

    def __init__(self, wanted: tuple[bytes, ...]) -> None:
        self._wanted = wanted
        self._counts = [0] * len(wanted)
        self._last = b""

    def chunk(self, data: bytes) -> None:
        seam = self._last + data[:_OVERLAP]
        for index, wanted in enumerate(self._wanted):
            crossing = seam.count(wanted) - self._last.count(wanted)
            crossing -= data.count(wanted, 0, _OVERLAP)
            self._counts[index] += data.count(wanted) + crossing
        self._last = (self._last + data[-_OVERLAP:])[-_OVERLAP:]

    def most(self) -> int:
        """Pictures have an address or their bytes, and some servers write null for the other."""
        return max(self._counts)
