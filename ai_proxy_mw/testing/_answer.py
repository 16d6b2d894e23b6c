"""An answer, and the forms it can take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from ai_proxy_mw._types import RawHeaders

_PROVIDER: RawHeaders = [
    (b"openai-processing-ms", b"7"),
    (b"openai-version", b"2020-10-01"),
    (b"x-ratelimit-limit-requests", b"10000"),
    (b"x-ratelimit-remaining-requests", b"9999"),
    # Providers send these as well; they are none of a proxy's callers' business.
    (b"set-cookie", b"session=upstream; Path=/"),
    (b"access-control-allow-origin", b"*"),
    (b"server", b"fake"),
]


@dataclass(slots=True)
class Answer:
    """Status, header lines without framing, and either all of the body or its pieces in turn.

    `length` is the size of a body in pieces if it is known; `paced` says that its pieces come at
    the fake's pace.
    """

    status: int
    headers: RawHeaders
    body: bytes | Iterator[bytes]
    length: int | None = None
    paced: bool = False
    text: bool = True

    def sign(self, key: str) -> None:
        """Add the lines that stand on every answer of a provider."""
        self.headers += [
            (b"x-request-id", b"req_" + key.encode()),
            (b"request-id", b"req_" + key.encode()),
        ]
        self.headers += _PROVIDER

    def frame(self) -> None:
        """Add the body's length where it is known."""
        length = len(self.body) if isinstance(self.body, bytes) else self.length
        if length is not None:
            self.headers.append((b"content-length", b"%d" % length))


def json_answer(value: Any, status: int = 200) -> Answer:
    body = msgspec.json.encode(value)
    return Answer(status, [(b"content-type", b"application/json")], body)


def text_answer(text: str) -> Answer:
    return Answer(200, [(b"content-type", b"text/plain; charset=utf-8")], text.encode())


def binary_answer(content_type: bytes, body: Iterable[bytes], length: int | None = None) -> Answer:
    """`length` None makes it a stream at the fake's pace."""
    return Answer(
        200,
        [(b"content-type", content_type)],
        iter(body),
        length=length,
        paced=length is None,
        text=False,
    )


def event_stream(events: Iterable[bytes]) -> Answer:
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
    ]
    return Answer(200, headers, iter(events), paced=True)


def page(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A list of objects as providers page them."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"],
        "last_id": items[-1]["id"],
        "has_more": False,
    }
