"""A plain WSGI application that reads the body and decodes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from benchmarks.payloads import ANSWER

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(ANSWER)))]


def make(upstream: str) -> WSGIApplication:  # noqa: ARG001 - every row is made from it
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        msgspec.json.decode(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        start_response("200 OK", _HEADERS)
        return [ANSWER]

    return app
