"""Whether the files of a request are such as its owner lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.data_url import is_data_url
from ai_proxy_mw.schema.found import Found, base64_of, data_url_of, essence, link_of
from ai_proxy_mw.schema.sniffing.kind import kind_of
from ai_proxy_mw.schema.sniffing.pdf import check_pdf
from ai_proxy_mw.schema.sniffing.source import Broken, Polyglot, Source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ai_proxy_mw._media import Files

_TYPES = {"application/pdf": "pdf", "application/x-pdf": "pdf"}

# Who says this says nothing (RFC 2046, section 4.5.1).
_ANY = ("", "application/octet-stream")


class Documents:
    """The files of one request."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._count = 0

    def judge(self, found: Found) -> None:
        """Look at one more. Raises InvalidRequest."""
        self._count += 1
        if self._count > self._files.max_count:
            message = f"The request has more than {self._files.max_count} files."
            raise InvalidRequest(message, param=found.param, code="too_many_files")
        # OpenRouter takes an address in the place of the data, too.
        if found.kind == "file_link" or _is_address(found.value):
            link_of(found, "file", "invalid_file")
            return
        text, declared = found.value, found.declared
        if is_data_url(text):
            media_type, text = data_url_of(found, "file", "invalid_file")
            declared = media_type or declared
        judge_file(base64_of(text, "file", found.param), declared, self._files, found.param)


def _is_address(value: bytes | memoryview) -> bool:
    return bytes(value[:6]).lower().startswith((b"http:", b"https:"))


def judge_file(source: Source, declared: str | None, files: Files, param: str) -> str:
    """Look at one file by itself; gives its format as in `Files.formats`.

    declared: its media type; None where nothing is said of it.

    Raises InvalidRequest with that `param`.
    """
    media_type = essence(declared)
    says_nothing = media_type in _ANY
    formats = files.formats
    if formats is not None and not says_nothing and _TYPES.get(media_type, "") not in formats:
        raise _unsupported(formats, param)
    if source.size > files.max_bytes:
        message = f"The file is larger than {files.max_bytes} bytes."
        raise InvalidRequest(message, param=param, code="file_too_large")
    kind = kind_of(source)
    if formats is None:
        return kind
    if kind not in formats:
        if says_nothing:
            raise _unsupported(formats, param)
        message = f"The file is declared as {_TYPES[media_type]}, but its data are not."
        raise InvalidRequest(message, param=param, code="invalid_file")
    try:
        check_pdf(source)
    except Broken as error:
        message = f"The file cannot be read: it {error}."
        raise InvalidRequest(message, param=param, code="invalid_file") from None
    except Polyglot as error:
        message = f"The file is more than a {kind}: it {error}."
        raise InvalidRequest(message, param=param, code="polyglot_file") from None
    return kind


def _unsupported(formats: Iterable[str], param: str) -> InvalidRequest:
    message = f"The file is of a format that is not taken here: send {', '.join(formats)}."
    return InvalidRequest(message, param=param, code="unsupported_file_format")
