"""What is in one part of an upload, judged while it passes."""

from __future__ import annotations

from collections.abc import Callable

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.sniffing.kind import HEAD, kind_of
from ai_proxy_mw.schema.sniffing.source import Plain
from ai_proxy_mw.schema.upload_rules import FieldRule, FileRule

OnField = Callable[[str, str], None]
"""Is told the name and text of each judged field; what it raises ends the upload."""


class FilePart:
    """A file, of which the first HEAD bytes are held. `size` counts the bytes.

    left: how many bytes the files of the upload may still have together, or None.
    """

    def __init__(self, name: str, filename: str | None, rule: FileRule, left: int | None) -> None:
        if filename is None:
            raise InvalidRequest(
                f"{name}: send it as a file, with a filename.", param=name, code="invalid_filename"
            )
        limits = [limit for limit in (rule.max_bytes, left) if limit is not None]
        self._limit = min(limits, default=None)
        self._name = name
        self._rule = rule
        self._head = b""
        self.size = 0

    def take(self, data: bytes, start: int, end: int) -> None:
        missing = HEAD - len(self._head)
        self.size += end - start
        if missing:
            self._head += data[start : min(end, start + missing)]
            if len(self._head) == HEAD:
                self._judge()
        if self._limit is not None and self.size > self._limit:
            raise InvalidRequest(
                f"{self._name}: the file is larger than {self._limit} bytes.",
                param=self._name,
                code="file_too_large",
            )

    def end(self) -> None:
        if not self.size:
            raise invalid_value(self._name, "the file is empty")
        if self.size < HEAD:
            self._judge()

    def _judge(self) -> None:
        formats = self._rule.formats
        if formats is None:
            return
        kind = kind_of(Plain(self._head))
        kind = "m4a" if kind == "mp4" else kind
        if kind in formats or (kind == "opus" and "ogg" in formats):
            return
        raise InvalidRequest(
            f"{self._name}: the file is of the kind {kind}; send {', '.join(formats)}.",
            param=self._name,
            code=self._rule.code,
        )


class FieldPart:
    """A text. Held only if there is something to judge, and told to `on_field` if it is right."""

    def __init__(
        self, name: str, filename: str | None, rule: FieldRule, on_field: OnField | None
    ) -> None:
        if filename is not None:
            raise invalid_value(name, "send it as text, without a filename")
        self._name = name
        self._rule = rule
        self._on_field = on_field
        self._value = b""
        self._size = 0

    def take(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self._rule.max_bytes:
            raise invalid_value(self._name, f"it is longer than {self._rule.max_bytes} bytes")
        if self._rule.judge is not None:
            self._value += data[start:end]

    def end(self) -> None:
        if self._rule.judge is None:
            if self._rule.required and not self._size:
                raise invalid_value(self._name, "it is empty")
            return
        try:
            value = self._value.decode()
        except UnicodeDecodeError:
            raise invalid_value(self._name, "send text in UTF-8") from None
        problem = self._rule.judge(value)
        if problem is not None:
            raise invalid_value(self._name, problem)
        if self._on_field is not None:
            self._on_field(self._name, value)


def invalid_value(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: {problem}.", param=name, code="invalid_value")
