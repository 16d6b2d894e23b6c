"""Getting a connection: addresses of both families, and TLS."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest

from ai_proxy_mw._errors import UpstreamUnreachable
from ai_proxy_mw.upstream.base import Origin
from tests.transport._certificates import Authority, authority
from tests.transport._harness import every_kind, fetch, get, in_loop, transport
from tests.transport._raw_server import Peer, RawServer, answering, ok

LOOPBACK6 = (socket.AF_INET6, "::1")
LOOPBACK4 = (socket.AF_INET, "127.0.0.1")


async def greeting(peer: Peer) -> None:
    """Speaks first, and no TLS."""
    await peer.send(b"220 mail.test ESMTP\r\n")
    await peer.until_closed()


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[socket.AddressFamily, str]) -> None:
    """Make the system's resolver answer that, in that order."""

    def getaddrinfo(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        assert host in ("localhost", b"localhost")
        return [(family, socket.SOCK_STREAM, 6, "", (ip, port)) for family, ip in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@every_kind
@in_loop
async def test_an_ipv6_address(kind: str) -> None:
    async with RawServer(answering(ok(b"six")), host="::1") as server, transport(kind) as upstream:
        assert (await fetch(upstream, get(server)))[1] == b"six"


@every_kind
@pytest.mark.parametrize(
    "addresses",
    [(LOOPBACK6, LOOPBACK4), (LOOPBACK4, LOOPBACK6), (LOOPBACK4,)],
    ids=["six-first", "four-first", "four-only"],
)
def test_localhost_is_found_whichever_family_listens(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    addresses: tuple[tuple[socket.AddressFamily, str], ...],
) -> None:
    @in_loop
    async def check() -> None:
        async with RawServer(answering(ok(b"found"))) as server, transport(kind) as upstream:
            origin = Origin("http", "localhost", server.port)
            with monkeypatch.context() as patch:
                resolve(patch, *addresses)
                assert (await fetch(upstream, get(origin)))[1] == b"found"

    check()


@every_kind
def test_no_address_answers(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    @in_loop
    async def check() -> None:
        async with RawServer(answering()) as server:
            origin = Origin("http", "localhost", server.port)
        async with transport(kind) as upstream:
            with monkeypatch.context() as patch:
                resolve(patch, LOOPBACK6, LOOPBACK4)
                with pytest.raises(UpstreamUnreachable):
                    await upstream.send(get(origin))

    check()


@every_kind
@in_loop
async def test_tls_with_the_right_certificate(kind: str) -> None:
    tls = authority().server("127.0.0.1")
    async with RawServer(answering(ok(b"one"), ok(b"two")), tls=tls) as server:
        async with transport(kind, ssl_context=authority().trust()) as upstream:
            assert (await fetch(upstream, get(server)))[1] == b"one"
            assert (await fetch(upstream, get(server)))[1] == b"two"
        assert server.accepted == 1


@every_kind
@pytest.mark.parametrize("wrong", ["host", "expired", "untrusted", "plain"])
@in_loop
async def test_tls_with_a_wrong_certificate(kind: str, wrong: str) -> None:
    signer = Authority() if wrong == "untrusted" else authority()
    tls: ssl.SSLContext | None = signer.server(
        "other.test" if wrong == "host" else "127.0.0.1", expired=wrong == "expired"
    )
    if wrong == "plain":
        tls = None
    script = answering(ok(b"never")) if tls else greeting
    async with RawServer(script, tls=tls) as server:
        origin = Origin("https", "127.0.0.1", server.port)
        async with transport(kind, ssl_context=authority().trust()) as upstream:
            with pytest.raises(UpstreamUnreachable):
                await upstream.send(get(origin, connect=5.0))
        assert not server.requests
