"""Addresses written to lead the fetcher inside: each is refused, and nobody is connected to."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.fetching.addresses import is_public
from tests.fetching._helpers import (
    HOST,
    PNG,
    TYPE,
    Names,
    Silent,
    WatchedLoop,
    fetching,
    on_loopback,
    refused,
)
from tests.transport._harness import in_loop, until
from tests.transport._raw_server import RawServer, closing, ok

SYNTAX = "invalid_image_url"
FORBIDDEN = "image_url_forbidden"

# `PORT` is where somebody listens on 127.0.0.1 and ::1, and hears of every connection.
TRICKS: list[tuple[str, str]] = [
    # plainly written addresses
    ("http://127.0.0.1:PORT/", FORBIDDEN),
    ("https://127.0.0.1:PORT/", FORBIDDEN),
    ("http://127.0.0.1", FORBIDDEN),
    ("http://127.8.8.8:PORT/", FORBIDDEN),
    ("http://0.0.0.0:PORT/", FORBIDDEN),
    ("http://10.0.0.1/", FORBIDDEN),
    ("http://172.16.0.1/", FORBIDDEN),
    ("http://192.168.1.1/", FORBIDDEN),
    ("http://100.64.0.1/", FORBIDDEN),
    ("http://100.100.100.200/latest/meta-data", FORBIDDEN),
    ("http://169.254.169.254/latest/meta-data", FORBIDDEN),
    ("http://168.63.129.16/machine", FORBIDDEN),
    ("http://192.0.0.192/opc/v2", FORBIDDEN),
    ("http://198.18.0.1/", FORBIDDEN),
    ("http://224.0.0.1/", FORBIDDEN),
    ("http://255.255.255.255/", FORBIDDEN),
    # IPv6
    ("http://[::1]:PORT/", FORBIDDEN),
    ("http://[::]:PORT/", FORBIDDEN),
    ("http://[0:0:0:0:0:0:0:1]:PORT/", FORBIDDEN),
    ("http://[0000:0000:0000:0000:0000:0000:0000:0001]:PORT/", FORBIDDEN),
    ("http://[::ffff:127.0.0.1]:PORT/", FORBIDDEN),
    ("http://[::ffff:7f00:1]:PORT/", FORBIDDEN),
    ("http://[::FFFF:8.8.8.8]/", FORBIDDEN),
    ("http://[::127.0.0.1]:PORT/", FORBIDDEN),
    ("http://[64:ff9b::127.0.0.1]:PORT/", FORBIDDEN),
    ("http://[64:ff9b::a9fe:a9fe]/", FORBIDDEN),
    ("http://[64:ff9b:1::7f00:1]/", FORBIDDEN),
    ("http://[2002:7f00:1::]:PORT/", FORBIDDEN),
    ("http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", FORBIDDEN),
    ("http://[2a00:1450::5efe:7f00:1]/", FORBIDDEN),
    ("http://[fd00:ec2::254]/latest", FORBIDDEN),
    ("http://[fe80::1]/", FORBIDDEN),
    ("http://[fec0::1]/", FORBIDDEN),
    ("http://[ff02::1]/", FORBIDDEN),
    ("http://[::1%25lo]:PORT/", SYNTAX),
    ("http://[fe80::1%lo]:PORT/", SYNTAX),
    ("http://[::1%]:PORT/", SYNTAX),
    ("http://[::ffff:0177.0.0.1]:PORT/", SYNTAX),
    ("http://[127.0.0.1]:PORT/", SYNTAX),
    ("http://[v1.127.0.0.1]:PORT/", SYNTAX),
    ("http://[::1]@127.0.0.1:PORT/", SYNTAX),
    ("http://[::1:PORT/", SYNTAX),
    ("http://::1:PORT/", SYNTAX),
    ("http://[::1].example.com:PORT/", SYNTAX),
    ("http://[[::1]]:PORT/", SYNTAX),
    ("http://[]:PORT/", SYNTAX),
    # other spellings of 127.0.0.1, which system libraries read
    ("http://127.1:PORT/", SYNTAX),
    ("http://127.0.1:PORT/", SYNTAX),
    ("http://0:PORT/", SYNTAX),
    ("http://2130706433:PORT/", SYNTAX),
    ("http://02130706433:PORT/", SYNTAX),
    ("http://017700000001:PORT/", SYNTAX),
    ("http://0x7f000001:PORT/", SYNTAX),
    ("http://0X7F000001:PORT/", SYNTAX),
    ("http://0x7f.1:PORT/", SYNTAX),
    ("http://0x7f.0x0.0x0.0x1:PORT/", SYNTAX),
    ("http://0177.0.0.1:PORT/", SYNTAX),
    ("http://0177.0.0.01:PORT/", SYNTAX),
    ("http://127.0.0.01:PORT/", SYNTAX),
    ("http://127.0.0.0x1:PORT/", SYNTAX),
    ("http://127.0.0.0x:PORT/", SYNTAX),
    ("http://00000127.0.0.1:PORT/", SYNTAX),
    ("http://4294967297:PORT/", SYNTAX),
    ("http://127.0.0.257:PORT/", SYNTAX),
    ("http://127.0.0.1.:PORT/", SYNTAX),
    ("http://127.0.0.1..:PORT/", SYNTAX),
    ("http://127..0.1:PORT/", SYNTAX),
    ("http://.127.0.0.1:PORT/", SYNTAX),
    ("http://127.0.0.1.1:PORT/", SYNTAX),
    ("http://anything.127.0.0.1:PORT/", SYNTAX),
    # characters that become others
    ("http://127。0。0。1:PORT/", FORBIDDEN),
    ("http://127．0．0．1:PORT/", FORBIDDEN),  # noqa: RUF001
    ("http://127｡0｡0｡1:PORT/", FORBIDDEN),
    ("http://①②⑦.⓪.⓪.①:PORT/", FORBIDDEN),
    ("http://１２７.0.0.1:PORT/", FORBIDDEN),  # noqa: RUF001
    ("http://𝟏𝟐𝟕.𝟎.𝟎.𝟏:PORT/", FORBIDDEN),  # noqa: RUF001
    ("http://⑯⑨.254.⑯⑨.254/", FORBIDDEN),
    ("http://１２７.1:PORT/", SYNTAX),  # noqa: RUF001
    ("http://127.0.0.1。:PORT/", SYNTAX),
    ("http://ｌｏｃａｌｈｏｓｔ:PORT/", FORBIDDEN),  # noqa: RUF001
    ("http://local\u00adhost:PORT/", FORBIDDEN),
    ("http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT/", FORBIDDEN),
    ("http://［::1］:PORT/", SYNTAX),  # noqa: RUF001
    ("http://\u00ad:PORT/", SYNTAX),
    ("http://" + "ⓛ" * 300 + ".com/", SYNTAX),
    ("http://127.0.0.1:①②/", SYNTAX),
    # names
    ("http://localhost:PORT/", FORBIDDEN),
    ("http://LOCALHOST:PORT/", FORBIDDEN),
    ("http://localhost.:PORT/", SYNTAX),
    ("http://any.localhost:PORT/", FORBIDDEN),
    ("http://localhost.localdomain:PORT/", FORBIDDEN),
    ("http://printer.local/", FORBIDDEN),
    ("http://metadata.google.internal/computeMetadata/v1/", FORBIDDEN),
    ("http://home.arpa/", FORBIDDEN),
    ("http://db:PORT/", FORBIDDEN),
    ("http://cdn.example.com:PORT/", FORBIDDEN),  # leads to 127.0.0.1
    ("http://127.0.0.1.example.com:PORT/", FORBIDDEN),  # and so do all
    ("https://cdn.example.com:PORT/", FORBIDDEN),
    ("http://cdn.example.com.:PORT/", SYNTAX),
    ("http://cdn..example.com:PORT/", SYNTAX),
    ("http://.example.com:PORT/", SYNTAX),
    ("http://-cdn.example.com:PORT/", SYNTAX),
    ("http://" + "a" * 64 + ".example.com/", SYNTAX),
    ("http://" + "a." * 130 + "example.com/", SYNTAX),
    ("http://xn--127.0.0.1:PORT/", SYNTAX),
    # who is named before the @ is nobody
    ("http://good@127.0.0.1:PORT/", SYNTAX),
    ("http://cdn.example.com@127.0.0.1:PORT/", SYNTAX),
    ("http://user:password@cdn.example.com:PORT/", SYNTAX),
    ("http://cdn.example.com:80@127.0.0.1:PORT/", SYNTAX),
    ("http://@127.0.0.1:PORT/", SYNTAX),
    ("http://127.0.0.1:PORT@cdn.example.com/", SYNTAX),
    ("http://cdn.example.com%40127.0.0.1:PORT/", SYNTAX),
    # where the host ends
    ("http://127.0.0.1:PORT\\@cdn.example.com/", SYNTAX),
    ("http:\\\\127.0.0.1:PORT/", SYNTAX),
    ("http:/\\127.0.0.1:PORT/", SYNTAX),
    ("http://cdn.example.com\\.127.0.0.1:PORT/", SYNTAX),
    ("http://127.0.0.1:PORT#@cdn.example.com/", FORBIDDEN),
    ("http://127.0.0.1:PORT?@cdn.example.com/", FORBIDDEN),
    ("http://127.0.0.1:PORT;@cdn.example.com/", SYNTAX),
    ("http://127.0.0.1%00.example.com:PORT/", SYNTAX),
    ("http://127.0.0.1%2f.example.com:PORT/", SYNTAX),
    ("http://%31%32%37.0.0.1:PORT/", SYNTAX),
    ("http://%6c%6f%63alhost:PORT/", SYNTAX),
    ("http://127.0.0.1,cdn.example.com:PORT/", SYNTAX),
    ("http://127.0.0.1&cdn.example.com:PORT/", SYNTAX),
    # characters that some leave out
    ("http://127.0.0.1\t:PORT/", SYNTAX),
    ("http://127.\n0.0.1:PORT/", SYNTAX),
    ("ht\ntp://127.0.0.1:PORT/", SYNTAX),
    ("http:/\t/127.0.0.1:PORT/", SYNTAX),
    ("http://127.0.0.1:PORT/\r\nX: y", SYNTAX),
    ("http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: x", SYNTAX),
    ("http://127.0.0.1:PORT/\x00", SYNTAX),
    (" http://127.0.0.1:PORT/", SYNTAX),
    ("http://127.0.0.1:PORT/ ", SYNTAX),
    ("http:// 127.0.0.1:PORT/", SYNTAX),
    ("http://127.0.0.1\u200b:PORT/", SYNTAX),
    ("http://127.0.0.1\u2028:PORT/", SYNTAX),
    ("\ufeffhttp://127.0.0.1:PORT/", SYNTAX),
    ("http://127.0.0.1:PORT/\ud800", SYNTAX),
    # ports
    ("http://127.0.0.1:+PORT/", SYNTAX),
    ("http://127.0.0.1:-1/", SYNTAX),
    ("http://127.0.0.1:0/", SYNTAX),
    ("http://127.0.0.1:65536/", SYNTAX),
    ("http://127.0.0.1:0x50/", SYNTAX),
    ("http://127.0.0.1:PORT:80/", SYNTAX),
    ("http://127.0.0.1:80:PORT/", SYNTAX),
    ("http://127.0.0.1:/", SYNTAX),
    ("http://127.0.0.1:000PORT/", SYNTAX),
    # other schemes, and none
    ("file:///etc/passwd", SYNTAX),
    ("file://127.0.0.1/etc/passwd", SYNTAX),
    ("gopher://127.0.0.1:PORT/_GET", SYNTAX),
    ("ftp://127.0.0.1:PORT/a.png", SYNTAX),
    ("dict://127.0.0.1:PORT/stat", SYNTAX),
    ("ldap://127.0.0.1:PORT/", SYNTAX),
    ("ws://127.0.0.1:PORT/", SYNTAX),
    ("unix:///var/run/docker.sock", SYNTAX),
    ("http+unix://%2Fvar%2Frun/", SYNTAX),
    ("data:image/png;base64,AAAA", SYNTAX),
    ("jar:http://127.0.0.1:PORT/!/", SYNTAX),
    ("javascript:alert(1)", SYNTAX),
    ("url:http://127.0.0.1:PORT/", SYNTAX),
    ("ｈttp://127.0.0.1:PORT/", SYNTAX),  # noqa: RUF001
    ("//127.0.0.1:PORT/", SYNTAX),
    ("//", SYNTAX),
    ("/", SYNTAX),
    ("", SYNTAX),
    ("http:", SYNTAX),
    ("http://", SYNTAX),
    ("http:///127.0.0.1:PORT/", SYNTAX),
    ("http:127.0.0.1:PORT/", SYNTAX),
    ("http:/127.0.0.1:PORT/", SYNTAX),
    ("http://?127.0.0.1:PORT/", SYNTAX),
    ("http://:PORT/", SYNTAX),
    ("127.0.0.1:PORT", SYNTAX),
    ("http://127.0.0.1:PORT/" + "a" * 9000, SYNTAX),
]
tricks = pytest.mark.parametrize(("url", "code"), TRICKS, ids=lambda text: ascii(text)[:60])


@tricks
def test_refused_with_its_code(url: str, code: str) -> None:
    @in_loop
    async def test() -> None:
        with Silent() as listener:
            async with fetching(is_allowed=is_public) as fetcher:
                with refused(code) as caught:
                    await fetcher.fetch(url.replace("PORT", str(listener.port)), param="here")
        assert caught.value.param == "here"
        assert str(listener.port) not in caught.value.message
        assert "127.0.0.1" not in caught.value.message

    test()


@tricks
def test_refused_without_a_list_of_hosts(url: str, code: str) -> None:
    @in_loop
    async def test() -> None:
        with Silent() as listener:
            async with fetching(
                is_allowed=is_public, allow_hosts=None, allow_http=False
            ) as fetcher:
                with pytest.raises(InvalidRequest) as caught:
                    await fetcher.fetch(url.replace("PORT", str(listener.port)))
        assert caught.value.code in (SYNTAX, FORBIDDEN)

    test()


def _can_travel(url: str) -> bool:
    """Whether a header line can hold it, as an address of its own and not a relative one."""
    return bool(re.match("[a-z+]+:", url)) and not re.search("[\x00-\x1f\ud800]|^ | $", url)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        *((url, code) for url, code in TRICKS if _can_travel(url)),
        ("//127.0.0.1:PORT/", FORBIDDEN),
        ("//localhost:PORT/", FORBIDDEN),
        ("//user@127.0.0.1:PORT/", SYNTAX),
        ("///127.0.0.1:PORT/", FORBIDDEN),  # a path of the same host
        ("/\\127.0.0.1:PORT/", SYNTAX),
        ("\\\\127.0.0.1:PORT/", SYNTAX),
        ("//[::1", SYNTAX),
        ("//127.0.0.1\t:PORT/", SYNTAX),
        ("x", FORBIDDEN),
    ],
    ids=lambda text: ascii(text)[:60],
)
def test_refused_after_a_redirect(url: str, code: str) -> None:
    @in_loop
    async def test() -> None:
        with Silent() as listener:
            location = url.replace("PORT", str(listener.port)).encode()
            answer = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % location
            # The server may be connected to, and nothing after it.
            first = iter([True])
            async with (
                RawServer(closing(answer)) as server,
                fetching(is_allowed=lambda _: next(first, False)) as fetcher,
            ):
                with refused(code):
                    await fetcher.fetch(f"http://{HOST}:{server.port}/a.png")
                assert server.accepted == 1

    test()


@pytest.mark.parametrize("host", ["127.0.0.1", "cdn.example.com", "[::1]"])
def test_the_listener_would_have_heard(host: str) -> None:
    """The same without the rule for addresses: what makes the silence of the others mean much."""

    @in_loop
    async def test() -> None:
        listener = Silent().__enter__()
        async with fetching(is_allowed=lambda _: True, timeout=0.3) as fetcher:
            with refused("image_unreachable"):
                await fetcher.fetch(f"http://{host}:{listener.port}/")
        assert listener.heard()
        listener.__exit__()

    test()


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["2606:4700::1", "93.184.216.34", "::1"],
        ["::ffff:93.184.216.34"],
        ["fe80::1%eth0"],
        ["2606:4700::1%eth0"],
        ["169.254.169.254"],
        ["no address"],
        ["0x7f.1"],
        [""],
    ],
    ids=str,
)
def test_one_forbidden_address_refuses_the_host(answer: list[str]) -> None:
    watched = WatchedLoop()

    async def test() -> None:
        async with fetching(Names(answer), is_allowed=is_public) as fetcher:
            with refused(FORBIDDEN) as caught:
                await fetcher.fetch(f"http://{HOST}/a.png")
        for address in filter(None, answer):
            assert address not in str(caught.value)

    in_loop(test, loop_factory=lambda: watched)()
    assert not watched.connected


def test_a_name_that_leads_elsewhere_the_second_time() -> None:
    watched = WatchedLoop()

    async def test() -> None:
        async with RawServer(closing(ok(PNG, TYPE))) as server:
            # Public first, then inside; here 127.0.0.1 stands for the public one.
            names = Names(["127.0.0.1"], ["127.0.0.2"])
            async with fetching(names) as fetcher:
                url = f"http://{HOST}:{server.port}/a.png"
                assert (await fetcher.fetch(url)).data == PNG
                assert names.asked == [(HOST, server.port)]
                assert watched.connected == [("127.0.0.1", server.port)]
                with refused(FORBIDDEN):
                    await fetcher.fetch(url)
            assert server.accepted == 1

    in_loop(test, loop_factory=lambda: watched)()
    assert watched.looked_up == []
    assert len(watched.connected) == 1


def test_a_redirect_to_the_same_name_is_looked_up_and_checked_again() -> None:
    @in_loop
    async def test() -> None:
        answer = b"HTTP/1.1 302 Found\r\nLocation: /b.png\r\nContent-Length: 0\r\n\r\n"
        async with RawServer(closing(answer)) as server:
            async with fetching(Names(["127.0.0.1"], ["127.0.0.2"])) as fetcher:
                with refused(FORBIDDEN) as caught:
                    await fetcher.fetch(f"http://{HOST}:{server.port}/a.png")
            assert caught.value.message.startswith("After a redirect") is False
            assert server.accepted == 1

    test()


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_loop
    async def test() -> None:
        with Silent() as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            async with RawServer(closing(ok(PNG, TYPE))) as server, fetching() as fetcher:
                await fetcher.fetch(f"http://{HOST}:{server.port}/a.png")

    test()


def test_the_request_carries_nothing_of_ours() -> None:
    @in_loop
    async def test() -> None:
        cookie = b"Set-Cookie: a=b"
        moved = (
            b"HTTP/1.1 307 Moved\r\nLocation: /b?q#f\r\n%s\r\nContent-Length: 0\r\n\r\n" % cookie
        )
        async with RawServer(closing(moved), closing(ok(PNG, TYPE, cookie))) as server:
            async with fetching() as fetcher:
                await fetcher.fetch(f"http://{HOST}:{server.port}/%61/../ü?a={{b}}&c=%zz#hash")
                await fetcher.fetch(f"http://{HOST}:{server.port}/b")
            lines = [request.lines for request in server.requests]
            assert [request[0] for request in lines] == [
                b"GET /%61/../%C3%BC?a=%7Bb%7D&c=%zz HTTP/1.1",
                b"GET /b?q HTTP/1.1",
                b"GET /b HTTP/1.1",
            ]
            for request in lines:
                assert request[1:] == [
                    b"Host: %s:%d" % (HOST.encode(), server.port),
                    b"User-Agent: ai_proxy_mw",
                    b"Accept: image/png, image/jpeg, image/jpg, image/webp, image/gif",
                    b"Accept-Encoding: identity",
                    b"Connection: close",
                ]

    test()


@in_loop
async def test_every_connection_is_a_new_one() -> None:
    async def keeps_open(peer: Any) -> None:
        await peer.request()
        await peer.send(ok(PNG, TYPE))
        await peer.until_closed()

    async with RawServer(keeps_open) as server, fetching() as fetcher:
        for _ in range(3):
            await fetcher.fetch(f"http://{HOST}:{server.port}/a.png")
        assert server.accepted == 3
        await until(server.idle)


def test_only_loopback_is_what_the_tests_allow() -> None:
    from ipaddress import ip_address

    assert on_loopback(ip_address("127.0.0.1"))
    assert not on_loopback(ip_address("127.0.0.2"))
