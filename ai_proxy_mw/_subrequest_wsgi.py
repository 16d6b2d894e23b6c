"""Asks a WSGI app in process."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from ai_proxy_mw._subrequest_answer import MARK, Answer, Target, passes, sent

Environ = dict[str, Any]
WSGIApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

# The caller's connection and its path, as the server knows them.
_OF_THE_SERVER = ("gunicorn.", "uwsgi.", "waitress.", "werkzeug.")
_LEFT_OUT = frozenset(
    {
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "PATH_TRANSLATED",
        "RAW_URI",
        "REQUEST_URI",
        "wsgi.file_wrapper",
        "wsgiorg.routing_args",
    }
)


def ask_wsgi(app: WSGIApp, environ: Environ, target: Target) -> Answer:
    """Call the app with a copy of the environ, in the thread of who calls this.

    Raises RuntimeError if the app raises, or returns before its answer has begun.
    """
    start = _Start()
    try:
        _run(app, _sub_environ(environ, target), start)
    except BaseException as error:
        # Also SystemExit and StopIteration, which a loop that waits for this cannot take.
        raise RuntimeError("the app has raised, asked who is calling") from error
    if start.answer is None:
        raise RuntimeError("the app has not answered, asked who is calling")
    return start.answer


def _run(app: WSGIApp, environ: Environ, start: _Start) -> None:
    pieces = app(environ, start)
    try:
        for piece in pieces:
            start.write(piece)
            if start.answer is not None and start.answer.too_large:
                break
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _sub_environ(environ: Environ, target: Target) -> Environ:
    sub = {name: value for name, value in environ.items() if _is_kept(name)}
    for name, value in sent([]):
        sub[f"HTTP_{name.decode('ascii').upper()}"] = value.decode("ascii")
    sub |= {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": target.path.decode("latin-1"),  # PEP 3333: bytes as text
        "QUERY_STRING": target.query.decode("ascii"),
        "wsgi.input": io.BytesIO(),
        "wsgi.input_terminated": True,
        "wsgi.multithread": True,
        MARK: True,
    }
    return sub


def _is_kept(name: str) -> bool:
    if name.startswith("HTTP_"):
        return passes(name[5:].replace("_", "-").lower().encode("latin-1"))
    return name not in _LEFT_OUT and not name.startswith(_OF_THE_SERVER)


class _Start:
    """`start_response`, and the `write` that it gives (PEP 3333)."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self._has_begun = False

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self._has_begun:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self.answer is not None:
            raise RuntimeError("start_response was called twice")
        lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self.answer = Answer(int(status[:3]), lines)
        return self.write

    def write(self, piece: bytes) -> None:
        if self.answer is None:
            raise RuntimeError("the app has sent a body before start_response")
        self._has_begun = self._has_begun or bool(piece)
        self.answer.add(piece)
