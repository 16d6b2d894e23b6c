"""One line of JSON for each call, through the logging of the host."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.metrics.log_bodies import SEAM, BodyTexts

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Record

logger = logging.getLogger("ai_proxy_mw.access")

ATTRIBUTE = "ai_proxy"
"""Of the log records: the members of the line, for formatters that want them apart."""

DEFAULT_BODY = 4096
MAX_BODY = 1024 * 1024
MAX_TEXT = 256
"""Characters of what callers and upstreams may name as they like, which is a model."""

_KEY_BYTES = (16, 64)  # less can be guessed, and BLAKE2 takes no more
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessLog:
    """Writes a line for each call to the logger `ai_proxy_mw.access`; a hook of records.

    Without arguments no line has anything of what was said.

    log_bodies: whether lines have the beginnings of the bodies, redacted; or how many bytes of
        each. True is 4096.
    redact: a function `(str) -> str` of each body, after our own redaction. While it raises, lines
        have no bodies.
    hash_subjects: whether subjects are hashed. With a key of yours (16 to 64 bytes) a subject has
        the same hash in all processes; with True in this one only, until it ends.
    level: of the lines.

    Raises ConfigurationError.
    """

    log_bodies: bool | int = False
    hash_subjects: bytes | str | bool = field(default=False, repr=False)
    redact: Callable[[str], str] | None = None
    level: int = logging.INFO
    _key: bytes | None = field(init=False, repr=False, compare=False)
    _texts: BodyTexts | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = _size(self.log_bodies)
        if self.redact is not None and (not callable(self.redact) or not size):
            raise ConfigurationError(
                "AccessLog(redact=...): write a function of a text, beside log_bodies=True"
            )
        if type(self.level) is not int or self.level < 1:
            raise ConfigurationError(f"AccessLog(level={self.level!r}): write logging.INFO or such")
        object.__setattr__(self, "_key", _hash_key(self.hash_subjects))
        object.__setattr__(self, "_texts", BodyTexts(size, self.redact) if size else None)

    @property
    def body_bytes(self) -> int:
        """How many bytes of each body are needed; somewhat more than are shown."""
        return 0 if self._texts is None else self._texts.size + SEAM

    @property
    def bodies_lost(self) -> int:
        """Of how many calls the bodies are not in the log since `redact` has raised."""
        return 0 if self._texts is None else self._texts.lost

    @property
    def is_on(self) -> bool:
        """Whether the logging of the host lets these lines pass."""
        return logger.isEnabledFor(self.level)

    def __call__(self, record: Record) -> None:
        """Write the line."""
        if not self.is_on:
            return
        members = _members(record)
        if self._key is not None and record.subject:
            members["subject"] = _hashed(record.subject, self._key)
        if self._texts is not None:
            members |= self._texts.members(record)
        # As `logger.log` does, but for looking who has called it: that is always this line.
        logger.handle(
            logger.makeRecord(
                logger.name, self.level, __file__, 0, _line(members), (), None, "AccessLog",
                extra={ATTRIBUTE: members},
            )
        )  # fmt: skip


def _members(record: Record) -> dict[str, Any]:
    """All that a line has, always in this order, so that the columns are the same for all."""
    return {
        "time": _rfc3339(record.time),
        "request_id": _clean(record.request_id),
        "subject": _clean(record.subject),
        "endpoint": record.endpoint,
        "model": _name(record.model),
        "model_used": _name(record.model_used),
        "upstream": record.upstream,
        "attempts": record.attempts,
        "status": record.status,
        "error": _name(record.error),
        "outcome": record.outcome,
        "stream": record.stream,
        "cache": record.cache,
        "background": record.background,
        "input_tokens": record.input_tokens,
        "cached_input_tokens": record.cached_input_tokens,
        "cache_write_tokens": record.cache_write_tokens,
        "output_tokens": record.output_tokens,
        "reasoning_tokens": record.reasoning_tokens,
        "audio_tokens": record.audio_tokens,
        "image_tokens": record.image_tokens,
        "images": record.images,
        "audio_seconds": record.seconds,
        "measured": record.measured,
        "cost_usd": _dollars(record.cost),
        "saved_usd": _dollars(record.saved),
        "saved_tokens": record.saved_tokens,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "first_byte_ms": _ms(record.first_byte),
        "first_content_ms": _ms(record.first_content),
        "total_ms": _ms(record.total),
        "max_gap_ms": _ms(record.max_gap),
        "overhead_ms": _ms(record.overhead),
    }


def _line(members: dict[str, Any]) -> str:
    """JSON in visible ASCII: one line in every encoding, terminal and log reader."""
    line = _encode(members).decode()
    if line.isascii() and "\x7f" not in line:
        return line
    return json.dumps(members, separators=(",", ":")).replace("\x7f", "\\u007f")


def _clean(text: str) -> str:
    """Without halves of surrogate pairs, which no encoding takes."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def _name(text: str | None) -> str | None:
    return None if text is None else _clean(text[:MAX_TEXT])


def _rfc3339(time: float) -> str:
    milliseconds = int(time * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


@lru_cache(maxsize=8)
def _second(time: int) -> str:
    # Kept, since it takes longer than all the rest of the line, and seconds have many calls.
    return datetime.fromtimestamp(time, UTC).isoformat()[:19]


def _dollars(micro: int | None) -> float | None:
    return None if micro is None else micro / 1_000_000


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1_000_000) / 1000


def _hashed(subject: str, key: bytes) -> str:
    # Keyed: of a plain hash the e-mail address can be found by hashing all that are known.
    return blake2b(subject.encode("utf-8", "backslashreplace"), key=key, digest_size=16).hexdigest()


def _size(log_bodies: bool | int) -> int:
    if isinstance(log_bodies, bool):
        return DEFAULT_BODY if log_bodies else 0
    if type(log_bodies) is not int or not 0 <= log_bodies <= MAX_BODY:
        raise ConfigurationError(
            f"AccessLog(log_bodies={log_bodies!r}): write True, or a number of bytes up to "
            f"{MAX_BODY}"
        )
    return log_bodies


def _hash_key(given: bytes | str | bool) -> bytes | None:
    if isinstance(given, bool):
        return secrets.token_bytes(32) if given else None
    key = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
    least, most = _KEY_BYTES
    if not isinstance(key, bytes) or not least <= len(key) <= most:
        raise ConfigurationError(
            f"AccessLog(hash_subjects=...): write True, or a secret of {least} to {most} bytes, "
            "such as secrets.token_hex(16) gives"
        )
    return key
