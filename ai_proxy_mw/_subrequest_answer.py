"""What a sub-request sends, and what comes back: the same for both kinds of host apps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

from ai_proxy_mw._http import Response

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

MAX_ANSWER = 64 * 1024
"""The most bytes of an answer's body that are held."""

MARK = "ai_proxy_mw.subrequest"
"""Stands in the scope or environ of a sub-request. No header of a caller can put it there."""

# Of the caller's body, which is not sent; of conditions, whose answers would be without content;
# of the connection, which there is none of; and what could make another method or coding of it.
_LEFT_OUT = frozenset(
    b"accept accept-encoding connection digest expect http2-settings keep-alive "
    b"proxy-connection range repr-digest te trailer transfer-encoding upgrade x-http-method "
    b"x-http-method-override x-method-override".split()
)
_LEFT_OUT_PREFIXES = (b"content-", b"if-")
_ACCEPT = (b"accept", b"application/json, */*;q=0.5")

# Of the connection (RFC 9110, section 7.6.1), or said by the server and the stages around us.
_NOT_PASSED_ON = frozenset(
    b"connection content-length date keep-alive proxy-connection server te trailer "
    b"transfer-encoding upgrade x-request-id".split()
)


class Target(NamedTuple):
    """A path, encoded and decoded, and a query."""

    raw_path: bytes
    path: bytes
    query: bytes

    @classmethod
    def of(cls, text: str) -> Target:
        raw_path, _, query = text.encode("ascii").partition(b"?")
        return cls(raw_path, unquote_to_bytes(raw_path), query)


class Answer:
    """An answer of the app. `body` is None if it was larger than what is held."""

    __slots__ = ("_pieces", "_size", "headers", "status")

    def __init__(self, status: int, headers: RawHeaders) -> None:
        self.status = status
        self.headers: RawHeaders = [(name.lower(), value) for name, value in headers]
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def too_large(self) -> bool:
        return self._size > MAX_ANSWER

    @property
    def body(self) -> bytes | None:
        return None if self.too_large else b"".join(self._pieces)

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self.too_large:
            self._pieces.clear()
        else:
            self._pieces.append(piece)

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


def passes(name: bytes) -> bool:
    """Whether a header line of the caller is sent along."""
    return name not in _LEFT_OUT and not name.startswith(_LEFT_OUT_PREFIXES)


def sent(headers: RawHeaders) -> RawHeaders:
    """The header lines of a sub-request, made of the caller's."""
    return [*(line for line in headers if passes(line[0])), _ACCEPT]


def passed_on(answer: Answer, body: bytes, *, head: bool) -> Response:
    """The app's answer as ours. CORS and the request's id are added by the stages around."""
    named = {
        name.strip().lower() for value in answer.values(b"connection") for name in value.split(b",")
    }
    headers = [
        line
        for line in answer.headers
        if line[0] not in _NOT_PASSED_ON
        and line[0] not in named
        and not line[0].startswith(b"access-control-")
    ]
    headers.append((b"content-length", b"%d" % len(body)))
    return Response(answer.status, headers, b"" if head else body)
