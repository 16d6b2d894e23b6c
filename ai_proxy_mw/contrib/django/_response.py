"""The proxy's answer as a response of Django's."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator
from typing import Any
from weakref import finalize

from django.http import StreamingHttpResponse

Lines = Iterable[tuple[str, str]]


def broken(error: Exception) -> Iterator[bytes]:
    """A body that breaks off at once, with an error that servers understand."""
    yield b""  # with which the server sends the head; without one, some would keep the connection
    raise error


class ProxyResponse(StreamingHttpResponse):
    """Has the header lines it was given and no others, several of one name too.

    Middlewares see several lines of a name joined by commas. Where one of them changes that, as
    `patch_vary_headers` does, its word goes out instead.
    """

    def __init__(
        self, status: int, lines: Lines, content: Iterable[bytes] | AsyncIterable[bytes]
    ) -> None:
        super().__init__(content)
        self.status_code = status  # not by the constructor, which knows none above 599
        del self.headers["Content-Type"]
        self._values: dict[str, list[str]] = {}
        for name, value in lines:
            self._values.setdefault(name.lower(), []).append(value)
            self.headers[name] = ", ".join(self._values[name.lower()])
        close = getattr(content, "close", None)
        if close is not None:
            # For when a middleware fails, or answers something else, and nobody calls close().
            finalize(self, close).atexit = False

    def has_header(self, header: str) -> bool:
        """Also true of Content-Encoding: GZipMiddleware, who asks, would hold streams back."""
        return header.lower() == "content-encoding" or super().has_header(header)

    __contains__ = has_header

    def items(self) -> Any:  # Django's own is typed as a view of a dict
        return list(self._lines())

    def _lines(self) -> Iterator[tuple[str, str]]:
        for name, value in self.headers.items():
            given = self._values.get(name.lower(), ())
            for line in given if ", ".join(given) == value else (value,):
                yield name, line
