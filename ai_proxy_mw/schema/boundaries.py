"""Where the parts of a multipart body begin and end, read in the one way that all agree on.

A parser may take lone line feeds for line breaks, or spaces behind a boundary, or skip what stands
around the parts; another may not. An upload that two could read differently is refused here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.parameters import read_parameters

CODE = "invalid_multipart"

_TYPE = re.compile(r"multipart/form-data[ \t]*(;.*)", re.IGNORECASE | re.DOTALL)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


def boundary_of(content_type: str) -> bytes:
    """The boundary that a `Content-Type` header names (RFC 2046, section 5.1.1).

    Raises InvalidRequest where there is none, or two, or one that cannot be; for further
    parameters that could name another (RFC 2231); and for a charset other than UTF-8.
    """
    found = _TYPE.fullmatch(content_type.strip(" \t"))
    if found is None:
        raise _invalid("Send the request body as multipart/form-data; boundary=...")
    parameters = read_parameters(found[1])
    if parameters is None or any("*" in name for name in parameters):
        raise _invalid("The Content-Type has a parameter that is malformed or there twice.")
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise _invalid("Send multipart/form-data in UTF-8.")
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise _invalid("The boundary must be 1 to 70 of the characters that RFC 2046 allows.")
    return boundary.encode("ascii")


class Fault(NamedTuple):
    """What is wrong, and how many bytes of the piece stand before it."""

    before: int
    message: str


class Delimiters:
    """Finds the lines between the parts of a body that comes in pieces (RFC 2046, section 5.1.1).

    `parts` counts the parts that have begun; `closed` is true from the last boundary on. Of the
    body it holds no more than the length of such a line.
    """

    def __init__(self, boundary: bytes) -> None:
        self._line = b"--" + boundary
        self._keep = len(self._line) + 5  # a line break, the line, what follows, and one to spare
        # Whatever anybody takes for a line break, and what follows the line.
        self._lines = re.compile(rb"(\r\n|\r|\n)%b(?=(.{0,2}))" % re.escape(self._line), re.DOTALL)
        self._carry = b"\r\n"  # the body begins as if behind a line break
        self.parts = 0
        self.closed = False

    def find(self, data: bytes) -> Fault | None:
        """Take the next piece; gives the first fault in it. To be left alone after one."""
        if self.parts and not self.closed and self._is_quiet(data):
            self._carry = data[-self._keep :]
            return None
        window = self._carry + data
        known = len(self._carry)
        if self.closed:
            return self._behind(window, 0, known)
        if not (self.parts or self._opens(window)):
            return Fault(0, "The request body must begin with its boundary.")
        judged = 0
        for found in self._lines.finditer(window):
            fault = self._judge(found, known)
            if fault is not None:
                return fault
            if found[2] == b"--":
                return self._behind(window, found.end() + 2, known)
            if found[2] == b"\r\n":
                judged = found.end()
        self._carry = window[max(judged, len(window) - self._keep) :]
        return None

    def _is_quiet(self, data: bytes) -> bool:
        """Whether nothing of a boundary is in a piece, which is so for most of a file.

        A plain search is several times quicker than the pattern, and needs no copy.
        """
        return (
            len(data) >= self._keep
            and self._line not in data
            and self._line not in self._carry + data[: self._keep]
        )

    def _opens(self, window: bytes) -> bool:
        """Whether the body begins with its boundary, or may still do."""
        start = window[2:]
        rest = start.removeprefix(b"\r\n")
        return rest.startswith(self._line) or self._line.startswith(rest) or start == b"\r"

    def _judge(self, found: re.Match[bytes], known: int) -> Fault | None:
        ending = found[2]
        if found[1] != b"\r\n" or not (b"\r\n".startswith(ending) or b"--".startswith(ending)):
            return Fault(
                max(0, found.start() - known),
                "A line of the request body begins with the boundary and is no boundary.",
            )
        self.parts += ending == b"\r\n"
        self.closed = ending == b"--"
        return None

    def _behind(self, window: bytes, start: int, known: int) -> Fault | None:
        """Nothing follows the last boundary but a line break."""
        self._carry = window[start:]
        if b"\r\n".startswith(self._carry):
            return None
        return Fault(max(0, start - known), "Something follows the last boundary.")


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, code=CODE)
