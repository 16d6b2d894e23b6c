"""What only the transport around a user's client has to promise; the rest is in tests/transport."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ai_proxy_mw._errors import (
    ConfigurationError,
    UpstreamBusy,
    UpstreamDisconnected,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ai_proxy_mw.upstream.base import Origin
from ai_proxy_mw.upstream.httpx import HttpxTransport, translated
from tests.transport._harness import fetch, get, in_loop, outbound, until
from tests.transport._raw_server import Peer, RawServer, answering, ok

both = pytest.mark.parametrize("name", ["httpx", "httpx2"])


ANYWHERE = Origin("http", "upstream.test", 80)


def make(name: str, **options: Any) -> Any:
    return importlib.import_module(name).AsyncClient(verify=False, trust_env=False, **options)


# What each exception of the libraries becomes. A class that is new in a later version fails
# test_no_error_class_is_missed until it is put here.
EXPECTED: dict[str, tuple[type[UpstreamError], str | None]] = {
    "HTTPError": (UpstreamProtocolError, None),
    "RequestError": (UpstreamProtocolError, None),
    "TransportError": (UpstreamProtocolError, None),
    "TimeoutException": (UpstreamTimeout, "idle"),
    "ConnectTimeout": (UpstreamTimeout, "connect"),
    "ReadTimeout": (UpstreamTimeout, "idle"),
    "WriteTimeout": (UpstreamTimeout, "write"),
    "PoolTimeout": (UpstreamBusy, None),
    "NetworkError": (UpstreamDisconnected, None),
    "ConnectError": (UpstreamUnreachable, None),
    "ReadError": (UpstreamDisconnected, None),
    "WriteError": (UpstreamDisconnected, None),
    "CloseError": (UpstreamDisconnected, None),
    "ProtocolError": (UpstreamProtocolError, None),
    "LocalProtocolError": (UpstreamProtocolError, None),
    "RemoteProtocolError": (UpstreamProtocolError, None),
    "ProxyError": (UpstreamUnreachable, None),
    "UnsupportedProtocol": (UpstreamUnreachable, None),
    "DecodingError": (UpstreamProtocolError, None),
    "TooManyRedirects": (UpstreamProtocolError, None),
    "HTTPStatusError": (UpstreamProtocolError, None),
    "InvalidURL": (UpstreamUnreachable, None),
    "CookieConflict": (UpstreamProtocolError, None),
    "StreamError": (UpstreamProtocolError, None),
    "StreamConsumed": (UpstreamProtocolError, None),
    "StreamClosed": (UpstreamProtocolError, None),
    "ResponseNotRead": (UpstreamProtocolError, None),
    "RequestNotRead": (UpstreamProtocolError, None),
}

# Of a part of httpx2 that a plain request never enters.
ELSEWHERE = {"SSEError"}


def error_classes(library: Any) -> dict[str, type[Exception]]:
    """Every public exception class of the library."""
    return {
        name: member
        for name, member in vars(library).items()
        if inspect.isclass(member)
        and issubclass(member, Exception)
        and not issubclass(member, Warning)
    }


@both
def test_no_error_class_is_missed(name: str) -> None:
    library = importlib.import_module(name)
    for known, error in error_classes(library).items():
        if ELSEWHERE & {base.__name__ for base in error.__mro__}:
            continue
        expected, waited_for = EXPECTED[known]
        fault = error.__new__(error)
        Exception.__init__(fault, "a text")
        with pytest.raises(expected) as caught, translated(library, "idle"):
            raise fault
        assert type(caught.value) is expected
        assert getattr(caught.value, "waited_for", None) == waited_for
        assert caught.value.__cause__ is fault
    assert set(EXPECTED) <= set(error_classes(library))


@both
def test_errors_of_others_pass(name: str) -> None:
    library = importlib.import_module(name)
    with pytest.raises(KeyError), translated(library, "idle"):
        raise KeyError


@pytest.mark.parametrize("client", ["httpx.Client", "str", None, 7])
def test_any_other_client_is_refused(client: Any) -> None:
    import httpx

    given = {"httpx.Client": httpx.Client(verify=False), "str": "client"}.get(client, client)
    with pytest.raises(ConfigurationError, match="AsyncClient"):
        HttpxTransport(given)


@both
def test_a_class_derived_from_the_client_is_taken(name: str) -> None:
    base = importlib.import_module(name).AsyncClient
    derived = type("Derived", (base,), {"__module__": "somewhere.else"})
    HttpxTransport(derived(verify=False))


def test_importing_it_imports_neither_library() -> None:
    code = (
        "import sys, ai_proxy_mw.upstream.httpx;"
        "assert not {'httpx', 'httpx2', 'httpcore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@both
@in_loop
async def test_nothing_of_the_client_goes_out(name: str) -> None:
    client = make(
        name,
        headers={"x-mine": "secret", "authorization": "Bearer mine"},
        cookies={"session": "mine"},
        params={"mine": "1"},
        auth=("me", "password"),
        base_url="http://elsewhere.test/base/",
        follow_redirects=True,
    )
    async with RawServer(answering(ok(b"x"))) as server, client:
        await fetch(HttpxTransport(client), outbound(server, body=b"{}"))
        assert server.requests[0].raw == (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: upstream.test\r\n"
            b"content-length: 2\r\n\r\n{}"
        )


@both
@in_loop
async def test_redirects_are_not_followed(name: str) -> None:
    moved = b"HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n\r\ngo"
    client = make(name, follow_redirects=True)
    async with RawServer(answering(moved, ok(b"followed"))) as server, client:
        response, body = await fetch(HttpxTransport(client), get(server))
        assert (response.status, body, len(server.requests)) == (307, b"go", 1)


@both
@in_loop
async def test_cookies_of_the_upstream_are_passed_on_and_not_kept(name: str) -> None:
    lines = [b"Set-Cookie: a=1; Path=/", b"Set-Cookie: b=2; Path=/v1", b"Set-Cookie: c=; Max-Age=0"]
    client = make(name)
    client.cookies.set("own", "kept", domain="elsewhere.test")
    async with RawServer(answering(ok(b"x", *lines), ok(b"y"))) as server, client:
        transport = HttpxTransport(client)
        response, _ = await fetch(transport, get(server))
        assert sum(key == b"set-cookie" for key, _ in response.headers) == 3
        await fetch(transport, get(server))
        assert server.requests[1].header(b"cookie") is None
        assert dict(client.cookies) == {"own": "kept"}


@both
@in_loop
async def test_a_cookie_that_somebody_else_has_removed_is_no_fault(name: str) -> None:
    async def forget(_: Any) -> None:
        client.cookies.clear()

    client = make(name, event_hooks={"response": [forget]})
    async with RawServer(answering(ok(b"x", b"Set-Cookie: a=1"))) as server, client:
        assert (await fetch(HttpxTransport(client), get(server)))[1] == b"x"


@both
@in_loop
async def test_closing_the_transport_leaves_the_client_open(name: str) -> None:
    async with RawServer(answering(ok(b"x"))) as server, make(name) as client:
        transport = HttpxTransport(client)
        await transport.aclose()
        assert (await fetch(transport, get(server)))[1] == b"x"
        assert not client.is_closed


@both
@in_loop
async def test_a_hook_that_reads_the_body_costs_streaming_only(name: str) -> None:
    async def read(response: Any) -> None:
        await response.aread()

    client = make(name, event_hooks={"response": [read]})
    zipped = gzip.compress(b"hello")
    answers = answering(ok(b"plain", b"x-a: b"), ok(zipped, b"content-encoding: gzip", b"x-c: d"))
    async with RawServer(answers) as server, client:
        transport = HttpxTransport(client)
        response, body = await fetch(transport, get(server))
        assert (body, response.headers) == (b"plain", [(b"x-a", b"b"), (b"content-length", b"5")])
        response, body = await fetch(transport, get(server))
        assert (body, response.headers) == (b"hello", [(b"x-c", b"d")])


@both
@in_loop
async def test_a_hook_that_raises_for_the_status_is_an_error_of_ours(name: str) -> None:
    async def strict(response: Any) -> None:
        response.raise_for_status()

    refusal = b"HTTP/1.1 429 Slow Down\r\ncontent-length: 0\r\n\r\n"
    client = make(name, event_hooks={"response": [strict]})
    async with RawServer(answering(refusal)) as server, client:
        with pytest.raises(UpstreamProtocolError):
            await HttpxTransport(client).send(get(server))


@both
@in_loop
async def test_a_mock_transport_can_stand_in(name: str) -> None:
    library = importlib.import_module(name)

    def answer(request: Any) -> Any:
        return library.Response(200, json={"path": request.url.path})

    async with make(name, transport=library.MockTransport(answer)) as client:
        _, body = await fetch(HttpxTransport(client), get(ANYWHERE))
        assert body.replace(b" ", b"") == b'{"path":"/v1/models"}'


class Pieces:
    """A body from a transport of the user's own: pieces, and perhaps an error when closed."""

    def __init__(self, library: Any, *pieces: bytes, broken: bool = False) -> None:
        class Stream(library.AsyncByteStream):  # type: ignore[misc]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                for piece in pieces:
                    yield piece

            async def aclose(self) -> None:
                if broken:
                    raise library.CloseError("it was broken already")

        self._answer = library.Response(200, stream=Stream())
        self.transport = library.MockTransport(lambda request: self._answer)


@both
@in_loop
async def test_empty_pieces_are_left_out(name: str) -> None:
    library = importlib.import_module(name)
    mock = Pieces(library, b"", b"a", b"", b"", b"b")
    async with make(name, transport=mock.transport) as client:
        response = await HttpxTransport(client).send(get(ANYWHERE))
        assert [piece async for piece in response.body] == [b"a", b"b"]


@both
@in_loop
async def test_a_connection_that_cannot_be_closed_is_closed_enough(name: str) -> None:
    library = importlib.import_module(name)
    mock = Pieces(library, b"a", b"b", broken=True)
    async with make(name, transport=mock.transport) as client:
        response = await HttpxTransport(client).send(get(ANYWHERE))
        await anext(response.body)
        await response.body.aclose()


@both
@in_loop
async def test_an_upgrade_that_a_transport_lets_through_is_refused(name: str) -> None:
    library = importlib.import_module(name)
    mock = library.MockTransport(lambda request: library.Response(101))
    async with make(name, transport=mock) as client:
        with pytest.raises(UpstreamProtocolError):
            await HttpxTransport(client).send(get(ANYWHERE))


@both
@in_loop
async def test_a_full_pool_is_busy(name: str) -> None:
    async def silent(peer: Peer) -> None:
        await peer.head()
        await peer.until_closed()

    limits = importlib.import_module(name).Limits(max_connections=1)
    async with RawServer(silent) as server, make(name, limits=limits) as client:
        transport = HttpxTransport(client)
        first = asyncio.create_task(transport.send(get(server)))
        await until(lambda: server.accepted == 1)
        with pytest.raises(UpstreamBusy):
            await transport.send(get(server, pool=0.1))
        first.cancel()
        await asyncio.wait((first,))


@both
@in_loop
async def test_without_keepalive_surplus_bytes_go_nowhere(name: str) -> None:
    """The way around what the libraries do with bytes behind an answer."""
    surplus = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL"
    limits = importlib.import_module(name).Limits(max_keepalive_connections=0)
    server = RawServer(answering(ok(b"first") + surplus), answering(ok(b"second")))
    async with server, make(name, limits=limits) as client:
        transport = HttpxTransport(client)
        bodies = [(await fetch(transport, get(server)))[1] for _ in range(2)]
        assert bodies == [b"first", b"second"]


@both
@in_loop
async def test_the_error_has_no_trace_of_the_request(name: str) -> None:
    async def cut(peer: Peer) -> None:
        await peer.head()

    async with RawServer(cut) as server, make(name) as client:
        sent = get(server, headers=[(b"authorization", b"Bearer sk-secret")])
        with pytest.raises(UpstreamDisconnected) as caught:
            await HttpxTransport(client).send(sent)
        assert "sk-secret" not in repr(caught.value) + str(caught.value.__cause__)
