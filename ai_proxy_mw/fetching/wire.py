"""Asking one checked IP address, with httpx; its errors are known here and nowhere else.

Only its transport is used: it has no cookies, no credentials, no redirects, no settings from the
environment, and logs no address.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from ai_proxy_mw.fetching.refusals import unreachable

if TYPE_CHECKING:
    import httpx

    from ai_proxy_mw.fetching.addresses import IPAddress
    from ai_proxy_mw.fetching.urls import WebAddress


class CannotConnect(Exception):
    """That IP address does not answer; another one might."""


class Answer:
    """The head of an answer, and its body as it comes."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code

    def header(self, name: str) -> str:
        """The value, empty without one; of several lines, all (RFC 9110, section 5.3)."""
        return ", ".join(self._response.headers.get_list(name))

    async def read(self, limit: int) -> bytes | None:
        """The body, or None as soon as it is longer than `limit` bytes."""
        body = bytearray()
        pieces: Any = self._response.aiter_raw()
        async with aclosing(pieces):
            async for piece in pieces:
                body += piece
                if len(body) > limit:
                    return None
        return bytes(body)


class Wire:
    """Makes connections, each for one request.

    trust: whose certificates are believed; without it the system's.
    """

    def __init__(self, trust: ssl.SSLContext | None = None) -> None:
        # Takes its time, which is not to be that of a call, and only who fetches needs it.
        import httpx  # noqa: PLC0415

        self._httpx = httpx
        self._trust = trust or ssl.create_default_context()

    @asynccontextmanager
    async def ask(
        self, web: WebAddress, address: IPAddress, accept: str, patience: float
    ) -> AsyncIterator[Answer]:
        """GET `web` from that IP address, whatever its host's name would lead to.

        patience: seconds for TCP, and again for TLS. There is no other time limit here.

        Raises CannotConnect, and InvalidRequest with `image_unreachable`, also while the body is
        read.
        """
        httpx = self._httpx
        request = _request(httpx, web, address, accept, patience)
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=0)
        transport = httpx.AsyncHTTPTransport(
            verify=self._trust, trust_env=False, limits=limits, retries=0
        )
        opened = request.extensions["trace"] = _Opened()
        try:
            with _translated(httpx):
                async with transport, _closing(transport, request) as response:
                    yield Answer(response)
        finally:
            await opened.close()


@asynccontextmanager
async def _closing(
    transport: httpx.AsyncHTTPTransport, request: httpx.Request
) -> AsyncIterator[httpx.Response]:
    response = await transport.handle_async_request(request)
    try:
        yield response
    finally:
        await response.aclose()


class _Opened:
    """The TCP connections that the library has opened for a request.

    It leaves one open when its caller is cancelled in a TLS handshake.
    """

    def __init__(self) -> None:
        self._streams: list[Any] = []

    async def __call__(self, event: str, told: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self._streams.append(told["return_value"])

    async def close(self) -> None:
        for stream in self._streams:
            await stream.aclose()


def _request(
    library: Any, web: WebAddress, address: IPAddress, accept: str, patience: float
) -> Any:
    return library.Request(
        "GET",
        library.URL(scheme=web.scheme, host=str(address), port=web.port, path="/"),
        headers=[
            ("Host", web.authority),
            ("User-Agent", "ai_proxy_mw"),
            ("Accept", accept),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ],
        extensions={
            "target": web.target,  # as it is; a URL would be normalised
            "sni_hostname": web.name,  # the name that the certificate must be for
            "timeout": {"connect": patience},
        },
    )


@contextmanager
def _translated(library: Any) -> Iterator[None]:
    try:
        yield
    except (library.ConnectError, library.ConnectTimeout) as error:
        raise CannotConnect from error
    # OSError: an ssl.SSLError in the middle of an answer is let through by the library.
    except (library.HTTPError, library.InvalidURL, library.StreamError, OSError) as error:
        raise unreachable("its host's answer could not be read") from error
