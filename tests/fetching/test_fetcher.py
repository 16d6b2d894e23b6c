"""Fetching over real sockets: what comes, what is refused, and what is left behind: nothing."""

from __future__ import annotations

import asyncio
import gc
import gzip
import subprocess
import sys
import threading
from typing import Any

import pytest
import uvloop

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.fetching.fetcher import Fetcher
from tests.fetching._helpers import (
    GIF,
    HOST,
    PNG,
    TYPE,
    Names,
    WatchedLoop,
    fetching,
    images,
    judge,
    on_loopback,
    refused,
)
from tests.transport._certificates import authority
from tests.transport._harness import in_loop, until
from tests.transport._raw_server import Peer, RawServer, closing, ok

UNREACHABLE = "image_unreachable"
TOO_LARGE = "image_too_large"
UNSUPPORTED = "unsupported_image_format"


def _raw(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


OK = b"HTTP/1.1 200 OK"
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"8\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (PNG[:8], len(PNG) - 8, PNG[8:])
LIMIT = 1000

GOOD = {
    "length": ok(PNG, TYPE),
    "chunked": _raw(OK, TYPE, CHUNKED, body=CHUNKS),
    "until closed": _raw(OK, TYPE, body=PNG),
    "http 1.0": _raw(b"HTTP/1.0 200 OK", TYPE, body=PNG),
    "parameters": ok(PNG, b"content-type: Image/PNG ; charset=binary"),
    "identity": ok(PNG, TYPE, b"Content-Encoding: Identity"),
    "early hints": _raw(b"HTTP/1.1 103 Early Hints", b"Link: <x>") + ok(PNG, TYPE),
    "as large as may be": ok(PNG.ljust(LIMIT, b"x"), TYPE),
    "said twice": ok(PNG, TYPE, b"Content-Length: %d" % len(PNG)),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("piece", [0, 7])
def test_a_picture(name: str, piece: int) -> None:
    @in_loop
    async def test() -> None:
        async with RawServer(closing(GOOD[name], piece=piece)) as server:
            async with fetching(max_bytes=LIMIT) as fetcher:
                fetched = await fetcher.fetch(f"http://{HOST}:{server.port}/a.png")
            assert (fetched.data[: len(PNG)], fetched.format) == (PNG, "png")

    test()


BAD = {
    "201": (_raw(b"HTTP/1.1 201 Created", TYPE, body=PNG), UNREACHABLE),
    "204": (_raw(b"HTTP/1.1 204 No Content"), UNREACHABLE),
    "206": (_raw(b"HTTP/1.1 206 Partial Content", TYPE, body=PNG), UNREACHABLE),
    "304": (_raw(b"HTTP/1.1 304 Not Modified", b"Location: /a"), UNREACHABLE),
    "300": (_raw(b"HTTP/1.1 300 Choices", b"Location: /a"), UNREACHABLE),
    "302 to nowhere": (_raw(b"HTTP/1.1 302 Found", b"Content-Length: 0"), UNREACHABLE),
    "302 to an empty place": (_raw(b"HTTP/1.1 302 Found", b"Location:"), UNREACHABLE),
    "401": (_raw(b"HTTP/1.1 401 No", b"WWW-Authenticate: Basic", TYPE, body=PNG), UNREACHABLE),
    "404": (_raw(b"HTTP/1.1 404 Not Found", TYPE, body=PNG), UNREACHABLE),
    "500": (_raw(b"HTTP/1.1 500 Oh", TYPE, body=PNG), UNREACHABLE),
    "101": (_raw(b"HTTP/1.1 101 Switching", b"Upgrade: x", b"Connection: upgrade"), UNREACHABLE),
    "302 to two places": (
        _raw(b"HTTP/1.1 302 Found", b"Location: /a", b"Location: /b"),
        "invalid_image_url",
    ),
    "no body": (_raw(OK, TYPE, b"Content-Length: 0"), UNREACHABLE),
    "no body until closed": (_raw(OK, TYPE), UNREACHABLE),
    "body cut": (_raw(OK, TYPE, b"Content-Length: 200", body=PNG), UNREACHABLE),
    "chunks cut": (_raw(OK, TYPE, CHUNKED, body=CHUNKS[:-5]), UNREACHABLE),
    "chunks wrong": (_raw(OK, TYPE, CHUNKED, body=b"xyz\r\n"), UNREACHABLE),
    "nothing": (b"", UNREACHABLE),
    "half a head": (b"HTTP/1.1 200", UNREACHABLE),
    "no http": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", UNREACHABLE),
    "http 2": (b"\x00\x00\x12\x04" + bytes(40), UNREACHABLE),
    "huge headers": (_raw(OK, TYPE, b"X: " + b"x" * 300_000), UNREACHABLE),
    "many headers": (_raw(OK, TYPE, *[b"X: y"] * 50_000), UNREACHABLE),
    "two lengths": (_raw(OK, TYPE, b"Content-Length: 108", b"Content-Length: 5"), UNREACHABLE),
    "no length": (_raw(OK, TYPE, b"Content-Length: many"), UNREACHABLE),
    "gzip": (ok(gzip.compress(PNG), TYPE, b"Content-Encoding: gzip"), UNREACHABLE),
    "br": (ok(PNG, TYPE, b"Content-Encoding: br"), UNREACHABLE),
    "twice": (ok(PNG, TYPE, b"Content-Encoding: identity, gzip"), UNREACHABLE),
    "gzip on the way": (_raw(OK, TYPE, b"Transfer-Encoding: gzip, chunked"), UNREACHABLE),
    "too large by its head": (_raw(OK, TYPE, b"Content-Length: 1001"), TOO_LARGE),
    "very large by its head": (_raw(OK, TYPE, b"Content-Length: 99999999999999999999"), TOO_LARGE),
    "too large": (_raw(OK, TYPE, body=PNG.ljust(LIMIT + 1, b"x")), TOO_LARGE),
    "html": (ok(b"<html>", b"Content-Type: text/html"), UNSUPPORTED),
    "svg": (ok(b"<svg>", b"Content-Type: image/svg+xml"), UNSUPPORTED),
    "bytes": (ok(PNG, b"Content-Type: application/octet-stream"), UNSUPPORTED),
    "two types": (ok(PNG, TYPE, TYPE), UNSUPPORTED),
    "no type": (ok(PNG), UNSUPPORTED),
    "another type": (ok(GIF, TYPE), UNSUPPORTED),
    "no picture": (ok(b"<html>secret", TYPE), UNSUPPORTED),
    "a format not allowed": (ok(GIF, b"Content-Type: image/gif"), UNSUPPORTED),
}


@pytest.mark.parametrize("name", BAD)
def test_no_picture(name: str) -> None:
    answer, code = BAD[name]

    @in_loop
    async def test() -> None:
        async with RawServer(closing(answer)) as server:
            async with fetching(max_bytes=LIMIT, formats=["png", "jpeg"]) as fetcher:
                with refused(code) as caught:
                    await fetcher.fetch(f"http://{HOST}:{server.port}/a.png", param="p")
            assert caught.value.param == "p"
            for secret in ("secret", "html", "127.0.0.1", HOST, str(server.port), "OpenSSH"):
                assert secret not in caught.value.message
            await until(server.idle)

    test()


@in_loop
async def test_a_body_that_is_too_large_by_its_head_is_not_read() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(_raw(OK, TYPE, b"Content-Length: 1001"))
        await peer.until_closed()

    async with RawServer(script) as server, fetching(max_bytes=LIMIT) as fetcher:
        with refused(TOO_LARGE) as caught:
            await fetcher.fetch(f"http://{HOST}:{server.port}/a.png")
        assert caught.value.message == "The picture is larger than 1000 bytes."
        await until(server.idle)


@in_loop
async def test_an_endless_body_is_left() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(_raw(OK, TYPE, CHUNKED))
        while True:
            await peer.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    async with RawServer(script) as server, fetching(max_bytes=1_000_000) as fetcher:
        with refused(TOO_LARGE):
            await fetcher.fetch(f"http://{HOST}:{server.port}/a.png")
        await until(server.idle)
        assert server.peers[0].sent < 50_000_000  # what the kernel's buffers took as well


async def _says_nothing(peer: Peer) -> None:
    await peer.until_closed()


async def _drips_its_head(peer: Peer) -> None:
    await peer.request()
    await peer.send(_raw(OK, TYPE, *[b"X: y"] * 900), piece=1, pause=0.01)


async def _drips_its_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(ok(PNG * 9, TYPE), piece=1, pause=0.01)


async def _hints_for_ever(peer: Peer) -> None:
    await peer.request()
    await peer.send(_raw(b"HTTP/1.1 103 Early Hints") * 900, piece=28, pause=0.01)


async def _redirects_slowly(peer: Peer) -> None:
    await peer.request()
    await peer.send(_raw(b"HTTP/1.1 302 Found", b"Location: /a"), piece=1, pause=0.005)


@pytest.mark.parametrize(
    "script",
    [_says_nothing, _drips_its_head, _drips_its_body, _hints_for_ever, _redirects_slowly],
    ids=lambda script: script.__name__.strip("_"),
)
def test_slow_servers(script: Any) -> None:
    @in_loop
    async def test() -> None:
        async with RawServer(script) as server, fetching(timeout=0.4, max_redirects=99) as fetcher:
            with refused(UNREACHABLE) as caught:
                await fetcher.fetch(f"http://{HOST}:{server.port}/a.png")
            assert "did not come within 0.4 s" in caught.value.message
            await until(server.idle)

    test()


# -- redirects -------------------------------------------------------------------------------------


def _to(location: str, status: int = 302) -> bytes:
    return _raw(
        b"HTTP/1.1 %d Moved" % status, b"Location: " + location.encode(), b"Content-Length: 9"
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int) -> None:
    @in_loop
    async def test() -> None:
        names = Names()

        async def to_another_host(peer: Peer) -> None:
            await peer.request()
            await peer.send(_to(f"//img.example.com:{server.port}/c", status))

        scripts = (closing(_to("/b", status)), to_another_host, closing(ok(PNG, TYPE)))
        async with RawServer(*scripts) as server:
            async with fetching(names, max_redirects=2) as fetcher:
                assert (await fetcher.fetch(f"http://{HOST}:{server.port}/a")).data == PNG
            assert names.asked == [(host, server.port) for host in (HOST, HOST, "img.example.com")]
            hosts = [request.header(b"host") for request in server.requests]
            assert hosts[-1] == b"img.example.com:%d" % server.port

    test()


@in_loop
async def test_a_loop_of_redirects_ends() -> None:
    async with RawServer(closing(_to("/a"))) as server, fetching(max_redirects=3) as fetcher:
        with refused(UNREACHABLE) as caught:
            await fetcher.fetch(f"http://{HOST}:{server.port}/a")
        assert "more than 3 redirects" in caught.value.message
        assert server.accepted == 4


@pytest.mark.parametrize("line", [b"X: y", b"Location:"])
def test_a_redirect_to_nowhere(line: bytes) -> None:
    @in_loop
    async def test() -> None:
        nowhere = _raw(b"HTTP/1.1 302 Found", line, b"Content-Length: 0")
        async with RawServer(closing(nowhere)) as server, fetching() as fetcher:
            with refused(UNREACHABLE) as caught:
                await fetcher.fetch(f"http://{HOST}:{server.port}/a")
            assert caught.value.message.endswith("its host answers with status 302.")
            assert server.accepted == 1

    test()


@in_loop
async def test_no_redirect_at_all() -> None:
    async with RawServer(closing(_to("/a"))) as server, fetching(max_redirects=0) as fetcher:
        with refused(UNREACHABLE):
            await fetcher.fetch(f"http://{HOST}:{server.port}/a")
        assert server.accepted == 1


@in_loop
async def test_a_redirect_to_a_host_that_is_not_listed() -> None:
    async with RawServer(closing(_to("https://other.org/a"))) as server, fetching() as fetcher:
        with refused("image_url_forbidden"):
            await fetcher.fetch(f"http://{HOST}:{server.port}/a")


# -- connecting ------------------------------------------------------------------------------------


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    watched = WatchedLoop()

    async def test() -> None:
        async with RawServer(closing(ok(PNG, TYPE)), host="127.0.0.3") as server:
            names = Names(["127.0.0.1", "127.0.0.2", "127.0.0.3"])
            async with fetching(names, is_allowed=lambda _: True) as fetcher:
                await fetcher.fetch(f"http://{HOST}:{server.port}/a")
        assert [host for host, _ in watched.connected] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]

    in_loop(test, loop_factory=lambda: watched)()
    assert watched.looked_up == []


def test_not_all_of_many_addresses_are_tried() -> None:
    watched = WatchedLoop()

    async def test() -> None:
        async with RawServer(closing(ok(PNG, TYPE)), host="127.0.0.4") as server:
            names = Names([f"127.0.0.{number}" for number in (1, 2, 3, 4)])
            async with fetching(names, is_allowed=lambda _: True) as fetcher:
                with refused(UNREACHABLE):
                    await fetcher.fetch(f"http://{HOST}:{server.port}/a")

    in_loop(test, loop_factory=lambda: watched)()
    assert len(watched.connected) == 3


@in_loop
async def test_an_address_that_is_written_out_is_not_looked_up() -> None:
    names = Names([])
    async with RawServer(closing(ok(PNG, TYPE))) as server, fetching(names) as fetcher:
        assert (await fetcher.fetch(f"http://127.0.0.1:{server.port}/a")).data == PNG
    assert names.asked == []


@in_loop
async def test_ipv6() -> None:
    async with RawServer(closing(ok(PNG, TYPE)), host="::1") as server:
        async with fetching(Names(["::1"]), is_allowed=lambda _: True) as fetcher:
            for host in ("[::1]", HOST):
                await fetcher.fetch(f"http://{host}:{server.port}/a")
        assert server.requests[0].header(b"host") == b"[::1]:%d" % server.port


# -- TLS -------------------------------------------------------------------------------------------


@in_loop
async def test_the_certificate_is_for_the_name() -> None:
    async with RawServer(closing(ok(PNG, TYPE)), tls=authority().server(HOST)) as server:
        async with fetching(trust=authority().trust(), allow_http=False) as fetcher:
            assert (await fetcher.fetch(f"https://{HOST}:{server.port}/a")).data == PNG
            for host in ("img.example.com", "127.0.0.1"):
                with refused(UNREACHABLE):
                    await fetcher.fetch(f"https://{host}:{server.port}/a")
        async with fetching() as fetcher:  # which trusts nobody
            with refused(UNREACHABLE):
                await fetcher.fetch(f"https://{HOST}:{server.port}/a")
        assert len(server.requests) == 1


@in_loop
async def test_the_certificate_of_an_address() -> None:
    async with (
        RawServer(closing(ok(PNG, TYPE)), tls=authority().server("127.0.0.1")) as server,
        fetching(trust=authority().trust()) as fetcher,
    ):
        assert (await fetcher.fetch(f"https://127.0.0.1:{server.port}/a")).data == PNG
        with refused(UNREACHABLE):
            await fetcher.fetch(f"https://{HOST}:{server.port}/a")


@in_loop
async def test_an_expired_certificate() -> None:
    tls = authority().server(HOST, expired=True)
    async with RawServer(closing(ok(PNG, TYPE)), tls=tls) as server:
        async with fetching(trust=authority().trust()) as fetcher:
            with refused(UNREACHABLE):
                await fetcher.fetch(f"https://{HOST}:{server.port}/a")
        assert not server.requests


@in_loop
async def test_no_tls_where_tls_is_asked_for() -> None:
    async with RawServer(closing(ok(PNG, TYPE))) as server, fetching() as fetcher:
        with refused(UNREACHABLE):
            await fetcher.fetch(f"https://{HOST}:{server.port}/a")


@in_loop
async def test_tls_that_breaks_in_the_middle() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(_raw(OK, TYPE, b"Content-Length: 200", body=PNG))
        transport: Any = peer._writer.transport
        transport._ssl_protocol._transport.write(b"\x17\x03\x03\x00\x10" + bytes(16))
        await peer.until_closed()

    async with (
        RawServer(script, tls=authority().server(HOST)) as server,
        fetching(trust=authority().trust()) as fetcher,
    ):
        with refused(UNREACHABLE):
            await fetcher.fetch(f"https://{HOST}:{server.port}/a")


# -- leaving ---------------------------------------------------------------------------------------


async def _stops_before_tls(peer: Peer) -> None:
    await peer.read(1)
    await peer.until_closed()


async def _stops_in_its_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(_raw(OK, TYPE, b"Content-Length: 200", body=PNG))
    await peer.until_closed()


@pytest.mark.parametrize(
    ("script", "scheme"),
    [(_stops_before_tls, "https"), (_says_nothing, "http"), (_stops_in_its_body, "http")],
    ids=["in the handshake", "before the head", "in the body"],
)
@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_who_leaves_takes_the_connection_along(script: Any, scheme: str, loop_factory: Any) -> None:
    async def test() -> None:
        async with RawServer(script) as server, fetching(max_concurrent=1) as fetcher:
            for number in (1, 2):  # the place is free again
                call = asyncio.create_task(fetcher.fetch(f"{scheme}://{HOST}:{server.port}/a"))
                await until(lambda n=number: server.accepted == n and server.open == 1)  # type: ignore[misc]
                if script is _stops_in_its_body:
                    await until(lambda: server.peers[-1].sent > 0)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                # Closed by us, and not by the collector of what nobody holds any more.
                gc.disable()
                try:
                    await until(server.idle)
                finally:
                    gc.enable()

    in_loop(test, loop_factory=loop_factory)()


@in_loop
async def test_who_leaves_the_look_up() -> None:
    asked = asyncio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        asked.set()
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async with fetching(resolve) as fetcher:
        call = asyncio.create_task(fetcher.fetch(f"http://{HOST}/a"))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


def test_another_event_loop() -> None:
    async def test() -> None:
        tls = authority().server(HOST)
        async with (
            RawServer(closing(_to("/b")), closing(ok(PNG, TYPE)), tls=tls) as server,
            fetching(trust=authority().trust()) as fetcher,
        ):
            assert (await fetcher.fetch(f"https://{HOST}:{server.port}/a")).data == PNG

    in_loop(test, loop_factory=uvloop.new_event_loop)()


# -- many at once ----------------------------------------------------------------------------------


class _Gate:
    """A server's script that holds every answer until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.most = self.now = 0

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        self.now += 1
        self.most = max(self.most, self.now)
        await self.opened.wait()
        self.now -= 1
        await peer.send(ok(PNG, TYPE))


@in_loop
async def test_so_many_at_once_and_no_more() -> None:
    gate = _Gate()
    async with RawServer(gate) as server, fetching(max_concurrent=3) as fetcher:
        url = f"http://{HOST}:{server.port}/a"
        calls = [asyncio.create_task(fetcher.fetch(url)) for _ in range(10)]
        await until(lambda: gate.now == 3)
        assert server.accepted == 3
        gate.opened.set()
        await asyncio.gather(*calls)
        assert (gate.most, server.accepted) == (3, 10)


@in_loop
async def test_waiting_for_a_place_counts() -> None:
    gate = _Gate()
    async with RawServer(gate) as server, fetching(max_concurrent=1, timeout=0.3) as fetcher:
        url = f"http://{HOST}:{server.port}/a"
        for call in [asyncio.create_task(fetcher.fetch(url)) for _ in range(2)]:
            with refused(UNREACHABLE):
                await call
        assert server.accepted == 1
        gate.opened.set()
        assert (await fetcher.fetch(url)).data == PNG


def test_several_event_loops() -> None:
    fetcher = Fetcher(
        images(max_concurrent=1), judge=judge, resolve=Names(), is_allowed=on_loopback
    )

    @in_loop
    async def test() -> None:
        async with RawServer(closing(ok(PNG, TYPE))) as server:
            url = f"http://{HOST}:{server.port}/a"
            await asyncio.gather(*(fetcher.fetch(url) for _ in range(3)))

    threads = [threading.Thread(target=test) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    test()
    assert len(fetcher._by_loop) == 1  # those that have ended are forgotten


# -- the judge -------------------------------------------------------------------------------------


@pytest.mark.parametrize("param", [None, "messages[0].content[1].image_url.url"])
def test_what_the_judge_says_goes_out(param: str | None) -> None:
    def too_wide(data: bytes) -> str:
        raise InvalidRequest("Too wide.", code="image_dimensions", param="mine")

    @in_loop
    async def test() -> None:
        async with RawServer(closing(ok(PNG, TYPE))) as server:
            fetcher = Fetcher(images(), judge=too_wide, resolve=Names(), is_allowed=on_loopback)
            with refused("image_dimensions") as caught:
                await fetcher.fetch(f"http://{HOST}:{server.port}/a", param=param)
            assert caught.value.param == (param or "mine")

    test()


def test_importing_the_package_brings_no_httpx() -> None:
    code = (
        "import sys, ai_proxy_mw, ai_proxy_mw.fetching.fetcher\n"
        "assert not {'httpx', 'httpcore', 'idna'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
