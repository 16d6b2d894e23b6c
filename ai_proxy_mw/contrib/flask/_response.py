"""The proxy's answer as a response of Flask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flask import Response, current_app
from werkzeug.datastructures import Headers

Lines = list[tuple[str, str]]

LEFT = "499 Client Closed Request"
"""The status, after nginx, of a call that was broken off before its answer."""


def respond(status: str, headers: Lines, pieces: Iterable[bytes]) -> Response:
    response = current_app.response_class(direct_passthrough=True)
    response.response = _Body(pieces)
    response.status = status
    response.headers = _with_one_vary(headers)  # as they are: without Flask's own content type
    return response


def broken(error: Exception) -> Iterator[bytes]:
    """Tells the server, where an exception of a view would be a fault that Flask logs."""
    yield from ()
    raise error


class _Body:
    """The pieces as the server iterates them, and no list, whose length Werkzeug would tell.

    Closed, and the upstream's answer with it, also where nobody has it any more: an
    `after_request` function has failed, or has put a response of its own in its place.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self._next = iter(pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._next)

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()

    def __del__(self) -> None:
        self.close()


class _Headers(Headers):
    """Lines of which those on origins are there once: browsers refuse a second one.

    What the app adds to an answer, as Flask-CORS does, stands in the place of ours.
    """

    def add(self, key: str, value: Any, /, **kwargs: Any) -> None:
        if key.lower().startswith("access-control-"):
            self.set(key, value, **kwargs)
        else:
            super().add(key, value, **kwargs)


def _with_one_vary(headers: Lines) -> Headers:
    """Flask's session adds to the first line of Vary and drops the others."""
    vary = ", ".join(value for name, value in headers if name == "vary")
    lines = [line for line in headers if line[0] != "vary"]
    return _Headers([*lines, ("vary", vary)] if vary else lines)
