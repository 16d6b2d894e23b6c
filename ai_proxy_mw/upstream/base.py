"""The seam to the outside: one request out, one answer back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from ai_proxy_mw._config import Timeouts
    from ai_proxy_mw._http import Response
    from ai_proxy_mw._incoming import RequestBody
    from ai_proxy_mw._types import RawHeaders

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})  # RFC 9110, section 9.2.2


class Origin(NamedTuple):
    """Where to connect; `host` has no brackets around an IPv6 address."""

    scheme: str
    host: str
    port: int


class Outbound(msgspec.Struct):
    """A request as it goes over the wire.

    `target` is path and query; `headers` are complete but for the framing (`content-length` or
    `transfer-encoding`), which the transport adds, since only it knows how it sends the body.
    `host` is among them.
    """

    method: str
    origin: Origin
    target: bytes
    headers: RawHeaders
    body: bytes | RequestBody
    timeouts: Timeouts

    def __repr__(self) -> str:
        # The key is among the headers.
        return f"Outbound({self.method} {self.origin} {self.target!r})"

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice can do no more than sending it once."""
        return isinstance(self.body, bytes) and (
            self.method in IDEMPOTENT or any(name == b"idempotency-key" for name, _ in self.headers)
        )


class Transport(Protocol):
    """Sends requests. All its failures are of the UpstreamError tree.

    `send` returns when the head of the answer is there. The names of the answer's headers are
    lower case; its body delivers the bytes as they came, still compressed if they were, and
    closing it before its end closes the call to the upstream. Cancelling `send` does the same.
    Errors that the request body raises while it is read come out of `send` unchanged.
    """

    async def send(self, outbound: Outbound) -> Response: ...

    async def aclose(self) -> None: ...
