"""The headers of one part of a multipart body (RFC 7578, section 4)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.boundaries import CODE
from ai_proxy_mw.schema.parameters import read_parameters

MOST_FILENAME_BYTES = 255

_DISPOSITION = re.compile(r"form-data[ \t]*(;.*)?", re.IGNORECASE)
_EXTENDED = re.compile(
    r"utf-8'[A-Za-z0-9-]*'((?:[!#$&+.^_`|~0-9A-Za-z-]|%[0-9A-Fa-f]{2})+)", re.IGNORECASE
)
_PLAIN = ("binary", "8bit", "7bit")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BYTES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # a header's value may have tabs
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\";\s]*)", re.IGNORECASE)
_BROWSER_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}


class PartHead(NamedTuple):
    """What a part is called, and its file's name if it is a file."""

    name: str
    filename: str | None


def read_head(lines: Iterable[tuple[bytes, bytes]]) -> PartHead:
    """What the header lines of a part say. Further headers are ignored, as RFC 7578, 4.8 asks.

    Raises InvalidRequest for what is malformed or there twice, for parts of parts, encoded parts,
    text in other charsets than UTF-8, and names that some system would take for a path.
    """
    headers = _headers(lines)
    head = _disposition(headers.get(b"content-disposition"))
    encoding = headers.get(b"content-transfer-encoding", "binary")
    if encoding.lower() not in _PLAIN:
        raise _invalid("Send the parts without a Content-Transfer-Encoding.", head.name)
    content_type = headers.get(b"content-type", "")
    if content_type.lower().startswith("multipart/"):
        raise _invalid("A part must not have parts of its own.", head.name)
    if head.filename is None:
        charset = _CHARSET.search(content_type)
        if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
            raise _invalid("Send text in UTF-8.", head.name)
    return head


def _headers(lines: Iterable[tuple[bytes, bytes]]) -> dict[bytes, str]:
    headers: dict[bytes, str] = {}
    for raw_name, raw in lines:
        name = raw_name.lower()
        if name in headers:
            raise _invalid("A part has the same header twice.")
        value = raw.strip(b" \t")
        if _CONTROL_BYTES.search(value):
            raise _invalid("A part has a header with control characters.")
        try:
            headers[name] = value.decode()
        except UnicodeDecodeError:
            raise _invalid("A part has a header that is not in UTF-8.") from None
    return headers


def _disposition(value: str | None) -> PartHead:
    found = None if value is None else _DISPOSITION.fullmatch(value)
    if found is None:
        raise _invalid("Each part needs a header 'Content-Disposition: form-data; name=...'.")
    parameters = read_parameters(found[1] or "")
    if parameters is None or any("*" in key and key != "filename*" for key in parameters):
        raise _invalid("A Content-Disposition is malformed, or has a parameter twice.")
    name = parameters.get("name", "")
    if not name or "\\" in name or _CONTROL.search(_unescaped(name)):
        raise _invalid("A part has no name, or one with control characters or backslashes.")
    if name == "_charset_":  # would change how others read the text (RFC 7578, section 4.6)
        raise _invalid("Send text in UTF-8.", name)
    return PartHead(name, _filename(name, parameters))


def _filename(name: str, parameters: dict[str, str]) -> str | None:
    filename = parameters.get("filename")
    extended = parameters.get("filename*")
    if filename is None and extended is None:
        return None
    if filename is None or (extended is not None and _decoded(extended) != filename):
        raise _bad_filename(name, "write it as filename=, in UTF-8 and without filename*=.")
    read = _unescaped(filename)
    if len(read.encode()) > MOST_FILENAME_BYTES:
        raise _bad_filename(name, f"it is longer than {MOST_FILENAME_BYTES} bytes.")
    if read.strip(". ") == "" or "/" in read or "\\" in read or _CONTROL.search(read):
        raise _bad_filename(name, "it is empty, or has slashes, backslashes or control characters.")
    return read


def _unescaped(text: str) -> str:
    """As browsers write it: they escape these three and nothing else (HTML, form submission)."""
    for escape, character in _BROWSER_ESCAPES.items():
        text = re.sub(escape, character, text, flags=re.IGNORECASE)
    return text


def _decoded(extended: str) -> str | None:
    """A `filename*` (RFC 8187), which RFC 7578 forbids and some send beside the other."""
    found = _EXTENDED.fullmatch(extended)
    try:
        return None if found is None else unquote(found[1], errors="strict")
    except UnicodeDecodeError:
        return None


def _bad_filename(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name}: the file's name cannot be used: {why}", param=name, code="invalid_filename"
    )


def _invalid(message: str, param: str | None = None) -> InvalidRequest:
    return InvalidRequest(message, param=param, code=CODE)
