"""Bodies as a log has them: text, without secrets, and not all of it."""

from __future__ import annotations

import codecs
import logging
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from ai_proxy_mw.metrics.redact import redact
from ai_proxy_mw.metrics.redact_stream import redact_stream

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Record

logger = logging.getLogger("ai_proxy_mw")

SEAM = 512
"""Bytes that are read beyond those that are shown, so that what the end cuts is still known."""

NOT_TEXT = "[not text]"


class BodyTexts:
    """Makes the members of bodies. Called by one thread at a time.

    size: the most bytes of each.
    lost: of how many calls the owner's `redact` has lost them.
    """

    __slots__ = ("_is_failing", "_redact", "lost", "size")

    def __init__(self, size: int, redact: Callable[[str], str] | None) -> None:
        self.size = size
        self.lost = 0
        self._redact = redact
        self._is_failing = False

    def members(self, record: Record) -> dict[str, str | bool | None]:
        """Both bodies and whether they are whole. None where they are not known, or lost."""
        bodies = record.bodies
        if bodies is None:
            return _members((None, None), (None, None))
        question = _text(redact(bodies.request, whole=bodies.request_is_whole))
        answer = _text(redact_stream(bodies.response, whole=bodies.response_is_whole))
        try:
            question, answer = self._by_owner(question), self._by_owner(answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not let bodies through
            self._lose(error)
            return _members((None, None), (None, None))
        self._is_failing = False
        return _members(
            self._cut(question, is_whole=bodies.request_is_whole),
            self._cut(answer, is_whole=bodies.response_is_whole),
        )

    def _by_owner(self, text: str) -> str:
        if self._redact is None:
            return text
        redacted = self._redact(text)
        if not isinstance(redacted, str):
            raise TypeError
        return redacted.encode("utf-8", "backslashreplace").decode()

    def _cut(self, text: str, *, is_whole: bool) -> tuple[str, bool]:
        data = text.encode()
        if len(data) <= self.size:
            return text, is_whole
        return data[: self.size].decode("utf-8", "ignore"), False

    def _lose(self, error: Exception) -> None:
        self.lost += 1
        if not self._is_failing:
            self._is_failing = True
            # Not what the error says, which may be the body.
            logger.error(
                "redact= of the access log has raised %s at %s; until it does not, bodies are "
                "left out",
                type(error).__name__,
                _place(error),
            )


def _place(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _text(data: bytes) -> str:
    """UTF-8, whose last character may be cut. With zeros it is another coding, or none."""
    if b"\0" in data:
        return NOT_TEXT
    try:
        return codecs.utf_8_decode(data, "strict", False)[0]
    except UnicodeDecodeError:
        return NOT_TEXT


def _members(
    request: tuple[str | None, bool | None], response: tuple[str | None, bool | None]
) -> dict[str, str | bool | None]:
    return {
        "request_body": request[0],
        "request_body_is_whole": request[1],
        "response_body": response[0],
        "response_body_is_whole": response[1],
    }
