"""Judges a multipart upload while it passes, and never holds a file (RFC 7578).

Two readers look at each piece, ours at the boundaries and python-multipart at all of it; an upload
in which they see a different number of parts is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.boundaries import CODE, Delimiters, boundary_of
from ai_proxy_mw.schema.part_bodies import FieldPart, FilePart, OnField, invalid_value
from ai_proxy_mw.schema.part_heads import read_head
from ai_proxy_mw.schema.upload_rules import FieldRule, FileRule, UploadRules

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_PARTS = 100
MOST_HEADERS = 8  # of a part, where RFC 7578 knows three
MOST_HEADER_BYTES = 4096  # of one of them

# What a caller sends wrong is told to the caller; the parser would also write it to the log.
_SILENT = logging.Logger("ai_proxy_mw.multipart", logging.CRITICAL + 1)  # noqa: LOG001 - it is ours alone


class Scanner:
    """Judges an upload by the rules of its endpoint. Sans-IO: bytes in, InvalidRequest out.

    content_type: the request's header.
    on_field: may judge further, such as whether the caller may use the model.
    """

    def __init__(
        self, content_type: str, rules: UploadRules, on_field: OnField | None = None
    ) -> None:
        # 50 ms of import, needed only where an upload comes.
        from python_multipart.multipart import MultipartParser  # noqa: PLC0415

        boundary = boundary_of(content_type)
        self._delimiters = Delimiters(boundary)
        self._parts = _Parts(rules, on_field)
        self._parser = MultipartParser(
            boundary,
            self._parts.callbacks(),
            max_header_count=MOST_HEADERS,
            max_header_size=MOST_HEADER_BYTES,
        )
        self._parser.logger = _SILENT

    def feed(self, data: bytes) -> None:
        """Judge the next piece. Raises InvalidRequest for the first thing wrong in it."""
        fault = self._delimiters.find(data)
        self._read(data if fault is None else data[: fault.before])
        if fault is not None:
            raise _invalid(fault.message)

    def finish(self) -> None:
        """Judge the upload as a whole, once all of it was fed. Raises InvalidRequest."""
        if not self._delimiters.closed:
            raise _invalid("The request body ends before its last boundary.")
        if self._delimiters.parts != self._parts.ended:
            raise _invalid("A part begins with the boundary.")
        self._parts.finish()

    def _read(self, data: bytes) -> None:
        from python_multipart.exceptions import MultipartParseError  # noqa: PLC0415 - see above

        try:
            self._parser.write(data)
        except MultipartParseError:
            # The lines between the parts have been judged: it can only be what follows them.
            raise _invalid(
                f"A part has a malformed header, more than {MOST_HEADERS}, "
                f"or one of more than {MOST_HEADER_BYTES} bytes."
            ) from None


class _Parts:
    """What the parser tells of the parts. Knows no parser, so that neither holds the other."""

    def __init__(self, rules: UploadRules, on_field: OnField | None) -> None:
        self._known: Mapping[str, FileRule | FieldRule] = {**rules.files, **rules.fields}
        self._bytes_left = rules.max_total_bytes
        self._on_field = on_field
        self._seen: dict[str, list[str]] = {}  # how each parameter was written each time
        self._lines: list[tuple[bytes, bytes]] = []
        self._part: FilePart | FieldPart | None = None
        self._begun = 0
        self.ended = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._header,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_headers_finished": self._headed,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def finish(self) -> None:
        for name, rule in self._known.items():
            if rule.required and name not in self._seen:
                raise InvalidRequest(
                    f"Missing required parameter: {name!r}.",
                    param=name,
                    code="missing_required_parameter",
                )

    def _begin(self) -> None:
        self._begun += 1
        if self._begun > MOST_PARTS:
            raise InvalidRequest(
                f"The request body has more than {MOST_PARTS} parts.", code="too_many_parts"
            )
        self._lines.clear()

    def _header(self) -> None:
        self._lines.append((b"", b""))

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        name, value = self._lines[-1]
        self._lines[-1] = (name + data[start:end], value)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        name, value = self._lines[-1]
        self._lines[-1] = (name, value + data[start:end])

    def _headed(self) -> None:
        head = read_head(self._lines)
        name = self._parameter(head.name)
        rule = self._known.get(name)
        if rule is None:
            return
        self._count(name, head.name, rule)
        if isinstance(rule, FileRule):
            self._part = FilePart(name, head.filename, rule, self._bytes_left)
        else:
            self._part = FieldPart(name, head.filename, rule, self._on_field)

    def _parameter(self, name: str) -> str:
        """The known parameter that a part of this name belongs to, else the name.

        Refuses other spellings of the known ones: some servers mind no capitals or brackets.
        """
        if name in self._known:
            return name
        base = name.removesuffix("[]")
        rule = self._known.get(base)
        if rule is not None and rule.array:
            return base
        folded = name.strip().casefold()
        for meant in (folded, folded.partition("[")[0]):
            if meant in self._known:
                raise invalid_value(meant, f"do not write it as {name!r}")
        return name

    def _count(self, name: str, written: str, rule: FileRule | FieldRule) -> None:
        seen = self._seen.setdefault(name, [])
        seen.append(written)
        if isinstance(rule, FieldRule) and rule.array:
            return
        if len(seen) > 1 and name in seen:
            raise InvalidRequest(
                f"{name}: it is there twice.", param=name, code="duplicate_parameter"
            )
        if isinstance(rule, FileRule) and len(seen) > rule.most:
            raise InvalidRequest(
                f"{name}: send at most {rule.most}.", param=name, code="too_many_parts"
            )

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part is not None:
            self._part.take(data, start, end)

    def _end(self) -> None:
        self.ended += 1
        part, self._part = self._part, None
        if part is None:
            return
        part.end()
        if self._bytes_left is not None and isinstance(part, FilePart):
            self._bytes_left -= part.size


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, code=CODE)
