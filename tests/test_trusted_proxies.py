"""The address that a call came from: the connection's, unless a proxy that is named says more."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import example, given
from hypothesis import strategies as st

from ai_proxy_mw import AIProxy, AIProxyMiddleware, AIProxyWSGIMiddleware, ConfigurationError
from ai_proxy_mw._clients import TrustedProxies
from ai_proxy_mw.testing import FakeUpstream
from tests.bare import exchange
from tests.reuse.cell import Recorder, upstream
from tests.servers import serve_asgi, serve_wsgi

PEER = "10.0.0.1"
TRUSTED = TrustedProxies(["10.0.0.0/8", "fd00::/8"])

Headers = list[tuple[bytes, bytes]]


def _for(*lines: str) -> Headers:
    return [(b"x-forwarded-for", line.encode("latin-1")) for line in lines]


def _forwarded(*lines: str) -> Headers:
    return [(b"forwarded", line.encode("latin-1")) for line in lines]


# -- chains -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([], PEER),
        (_for("9.9.9.9"), "9.9.9.9"),
        (_for(" 9.9.9.9\t"), "9.9.9.9"),
        (_for("6.6.6.6, 9.9.9.9"), "9.9.9.9"),
        (_for("6.6.6.6, 9.9.9.9, 10.0.0.2,10.0.0.3"), "9.9.9.9"),
        (_for("6.6.6.6", "9.9.9.9", "10.0.0.2"), "9.9.9.9"),
        (_for("10.0.0.2, 10.0.0.3"), "10.0.0.2"),  # all of the house: the farthest
        (_for("9.9.9.9:4711"), "9.9.9.9"),
        (_for("2001:db8::9"), "2001:db8::9"),
        (_for("2001:DB8:0::9"), "2001:db8::9"),
        (_for("[2001:db8::9]"), "2001:db8::9"),
        (_for("[2001:db8::9]:4711"), "2001:db8::9"),
        (_for("9.9.9.9, fd00::1"), "9.9.9.9"),
        (_for("::ffff:9.9.9.9"), "9.9.9.9"),
        (_for("9.9.9.9, ::ffff:10.0.0.2"), "9.9.9.9"),
        # What cannot be read ends the chain: all before it came through somebody unknown.
        (_for("9.9.9.9, garbage"), PEER),
        (_for("9.9.9.9, garbage, 10.0.0.2"), "10.0.0.2"),
        (_for("garbage, 9.9.9.9"), "9.9.9.9"),
        (_for("9.9.9.9,"), PEER),
        (_for(""), PEER),
        (_for(",,,"), PEER),
        (_for("unknown"), PEER),
        (_for("9.9.9"), PEER),
        (_for("9.9.9.999"), PEER),
        (_for("09.9.9.9"), PEER),
        (_for("9.9.9.9/32"), PEER),
        (_for("9.9.9.9 8.8.8.8"), PEER),
        (_for("9.9.9.9:port"), PEER),
        (_for("9.9.9.9:999999"), PEER),
        (_for("[9.9.9.9"), PEER),
        (_for("2001:db8::9]:1"), PEER),
        (_for("\xb2.9.9.9"), PEER),
        (_for("9.9.9.9\x00"), PEER),
        (_for('"9.9.9.9"'), PEER),
        (_for("localhost"), PEER),
        (_for("1" * 5000), PEER),
        (_forwarded("for=9.9.9.9"), "9.9.9.9"),
        (_forwarded("FOR=9.9.9.9;proto=https;by=10.0.0.1"), "9.9.9.9"),
        (_forwarded("proto=https; for=9.9.9.9 ;by=10.0.0.1"), "9.9.9.9"),
        (_forwarded('for="9.9.9.9:80"'), "9.9.9.9"),
        (_forwarded('for="[2001:db8::9]:80"'), "2001:db8::9"),
        (_forwarded('for="[2001:db8::9]"'), "2001:db8::9"),
        (_forwarded("for=6.6.6.6, for=9.9.9.9, for=10.0.0.2"), "9.9.9.9"),
        (_forwarded("for=6.6.6.6", "for=9.9.9.9,for=10.0.0.2"), "9.9.9.9"),
        (_forwarded("for=6.6.6.6 ,  for=9.9.9.9"), "9.9.9.9"),
        (_forwarded("by=10.0.0.1"), PEER),
        (_forwarded("for=unknown"), PEER),
        (_forwarded("for=_hidden"), PEER),
        (_forwarded("for="), PEER),
        (_forwarded("for"), PEER),
        (_forwarded("=9.9.9.9"), PEER),
        (_forwarded("for=9.9.9.9, for=unknown"), PEER),
        (_forwarded("9.9.9.9"), PEER),
        (_forwarded("xfor=9.9.9.9"), PEER),
        (_forwarded('secret=";for=6.6.6.6;";for=9.9.9.9'), "9.9.9.9"),
        (_forwarded('for=9.9.9.9;secret=",for=6.6.6.6,"'), "9.9.9.9"),
        (_forwarded('host="a,for=6.6.6.6", for=9.9.9.9'), "9.9.9.9"),
        # An open quote, behind which a proxy that quotes is misread.
        (_forwarded('for=6.6.6.6;x=", for="9.9.9.9:80"'), PEER),
        (_forwarded('for=6.6.6.6;x="', 'for="9.9.9.9:80"'), PEER),
        (_forwarded('for=6.6.6.6;x="\\", for="9.9.9.9:80"'), PEER),
        (_forwarded('for="6.6.6.6, for=9.9.9.9'), PEER),
        (_forwarded('for="9.9.9.9\\"'), PEER),
        (_forwarded('for="9.9.9.9"x'), PEER),
        # Both headers: they must agree, for one of them may be the caller's own.
        (_for("9.9.9.9") + _forwarded("for=9.9.9.9"), "9.9.9.9"),
        (_for("9.9.9.9") + _forwarded('for="9.9.9.9:80";proto=https'), "9.9.9.9"),
        (_for("6.6.6.6") + _forwarded("for=9.9.9.9"), None),
        (_for("9.9.9.9") + _forwarded("for=garbage"), None),
        (_for("9.9.9.9") + _forwarded('x="'), None),
        (_for("garbage") + _forwarded("for=9.9.9.9"), None),
        # Nobody's word.
        ([(b"x-real-ip", b"6.6.6.6"), (b"client-ip", b"6.6.6.6")], PEER),
        ([(b"x_forwarded_for", b"6.6.6.6"), (b"x-forwarded", b"for=6.6.6.6")], PEER),
    ],
)
def test_a_trusted_peer_names_the_caller(headers: Headers, client: str | None) -> None:
    assert TRUSTED.client(PEER, headers) == client
    assert TRUSTED.client("8.8.8.8", headers) == "8.8.8.8"
    assert TrustedProxies([]).client(PEER, headers) == PEER


@pytest.mark.parametrize(
    ("networks", "peer", "trusted"),
    [
        (["10.0.0.1"], "10.0.0.1", True),
        (["10.0.0.1"], "10.0.0.2", False),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", True),
        (["::1"], "::1", True),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["::/0"], "9.9.9.9", False),
        (["0.0.0.0/0"], "9.9.9.9", True),
        (["unix"], None, True),
        (["unix"], "", True),
        (["unix"], "9.9.9.9", False),
        (["unix"], "unix", False),
        (["10.0.0.0/8"], None, False),
        (["10.0.0.0/8"], "", False),
        (["10.0.0.0/8"], "testclient", False),
        (["10.0.0.0/8", "unix"], None, True),
    ],
)
def test_who_is_trusted(networks: list[str], peer: str | None, trusted: bool) -> None:
    expected = "6.6.6.6" if trusted else peer
    assert TrustedProxies(networks).client(peer, _for("6.6.6.6")) == expected
    assert TrustedProxies(iter(networks)).client(peer, _forwarded("for=6.6.6.6")) == expected


@pytest.mark.parametrize(
    "networks", ["10.0.0.0/8", ["10.0.0.1/8"], ["*"], ["proxy.local"], [""], [None], ["10.0.0"]]
)
def test_what_is_no_network_is_refused_when_the_proxy_is_made(networks: Any) -> None:
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        AIProxy(upstream=upstream(FakeUpstream()), anonymous=True, trusted_proxies=networks)


# -- whatever a caller sends --------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *("for=", "For=", "by=", "x=", "6.6.6.6", "[2001:db8::6]", ":80", "10.0.0.9", "fd00::9"),
        *(",", ";", "=", '"', "\\", " ", "\t", "a", "\xff", "unknown", "::ffff:10.0.0.9"),
    ]
)
LINE = st.lists(PIECES, max_size=14).map("".join)
NAME = st.sampled_from([b"forwarded", b"x-forwarded-for"])
SENT = st.lists(st.tuples(NAME, LINE.map(lambda line: line.encode("latin-1"))), max_size=4)
UNTRUSTED = st.sampled_from(["8.8.8.8", "2001:db8::1", "::ffff:8.8.8.8", "testclient", "", None])


@given(UNTRUSTED, SENT)
def test_an_untrusted_peers_headers_change_nothing(peer: str | None, headers: Headers) -> None:
    assert TRUSTED.client(peer, headers) == peer


@given(st.ip_addresses().map(str), SENT)
def test_without_trusted_proxies_no_header_changes_anything(peer: str, headers: Headers) -> None:
    assert TrustedProxies([]).client(peer, headers) == peer


REAL = "9.9.9.9"
HONEST = st.sampled_from(
    ["for=9.9.9.9", 'for="9.9.9.9"', 'for="9.9.9.9:80"', 'proto="https";for="9.9.9.9:80";by=x']
)


@given(LINE, HONEST, st.booleans())
@example('for=6.6.6.6;x="', 'for="9.9.9.9:80"', False)
@example('for=6.6.6.6;x="\\"', 'for="9.9.9.9:80"', True)
def test_whatever_a_caller_sends_the_proxy_that_adds_to_it_is_heard(
    sent: str, added: str, joined: bool
) -> None:
    headers = _forwarded(f"{sent}, {added}") if joined else _forwarded(sent, added)
    assert TRUSTED.client(PEER, headers) in (REAL, PEER)


@given(LINE, st.booleans())
def test_the_same_of_the_plainer_header(sent: str, joined: bool) -> None:
    headers = _for(f"{sent}, {REAL}") if joined else _for(sent, REAL)
    assert TRUSTED.client(PEER, headers) == REAL


@given(SENT, HONEST)
def test_a_forged_header_beside_an_honest_one_gains_nothing(sent: Headers, added: str) -> None:
    forged = [line for line in sent if line[0] == b"x-forwarded-for"]
    assert TRUSTED.client(PEER, forged + _forwarded(added)) in (REAL, None)


@given(SENT)
def test_what_comes_out_is_an_address(headers: Headers) -> None:
    client = TRUSTED.client(PEER, headers)
    assert client in (None, PEER, "6.6.6.6", "2001:db8::6", "10.0.0.9", "fd00::9", "fd00::980")


@pytest.mark.parametrize(
    "piece",
    [
        *('"', 'for="', "a", "for=10.0.0.1,", ";", "for=10.0.0.1;", "=", '"a\\', " \t", "x=y;"),
        *('"",', 'for="10.0.0.1",', "10.0.0.1,", "[", ":", "1.", "%"),
    ],
)
@pytest.mark.parametrize("name", [b"forwarded", b"x-forwarded-for"])
def test_a_long_header_costs_no_more_than_its_length(name: bytes, piece: str) -> None:
    def seconds(length: int) -> float:
        headers = [(name, (piece * (length // len(piece))).encode())]
        began = time.perf_counter()
        TRUSTED.client(PEER, headers)
        return time.perf_counter() - began

    # Ten times the length would be a hundred times the work of a scan that starts over.
    small = min(seconds(20_000) for _ in range(3))
    large = min(seconds(200_000) for _ in range(3))
    assert large < max(50 * small, 0.1)


# -- over sockets -------------------------------------------------------------------------------


@contextmanager
def _serve(door: str, recorder: Recorder, **options: Any) -> Iterator[str]:
    proxy = AIProxy(upstream=upstream(FakeUpstream()), anonymous=True, **options)
    recorder.watch(proxy)
    if door == "asgi":
        # uvicorn itself believes X-Forwarded-For of 127.0.0.1 unless it is told not to.
        with serve_asgi(AIProxyMiddleware(proxy=proxy), proxy_headers=False) as url:
            yield url
    else:
        with serve_wsgi(AIProxyWSGIMiddleware(proxy=proxy)) as url:
            yield url


FORGED = [
    b"X-Forwarded-For: 6.6.6.6",
    b"Forwarded: for=6.6.6.6",
    b"X-Real-IP: 6.6.6.6",
    b"X_Forwarded_For: 6.6.6.6",
    b"X-Forwarded-For : 6.6.6.6",
    b"Client-IP: 6.6.6.6",
    b"True-Client-IP: 6.6.6.6",
    b"Remote-Addr: 6.6.6.6",
    b"REMOTE_ADDR: 6.6.6.6",
    b"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6",
]


def _call(url: str, *lines: bytes) -> int:
    head = b"\r\n".join([b"GET /v1/models HTTP/1.1", b"Host: app", *lines, b"", b""])
    return exchange(url, head).status


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
def test_forged_headers_change_nothing_unless_their_sender_is_trusted(door: str) -> None:
    for options in ({}, {"trusted_proxies": ["10.0.0.0/8", "unix"]}):
        recorder = Recorder()
        with _serve(door, recorder, **options) as url:
            for line in FORGED:
                assert _call(url, line) in (200, 400)
        assert set(recorder.subjects.values()) == {"127.0.0.1"}
        assert len(recorder.subjects) >= len(FORGED) - 1


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
def test_a_trusted_proxys_word_makes_the_subject(door: str) -> None:
    recorder = Recorder()
    with _serve(door, recorder, trusted_proxies=["127.0.0.0/8"]) as url:
        for lines in (
            (b"X-Forwarded-For: 6.6.6.6, 9.9.9.9",),
            (b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: 2001:db8::9"),
            (b'Forwarded: for=6.6.6.6, for="[2001:db8::9]:80";proto=https',),
            (b"X-Forwarded-For: 9.9.9.9", b"Forwarded: for=6.6.6.6"),
            (b'Forwarded: for=6.6.6.6;x="', b'Forwarded: for="9.9.9.9:80"'),
            (b"X_Forwarded_For: 6.6.6.6",),
        ):
            assert _call(url, *lines) == 200
    assert list(recorder.subjects.values()) == [
        "9.9.9.9",
        "2001:db8::9",
        "2001:db8::9",
        "unknown",
        "127.0.0.1",
        "127.0.0.1",
    ]


@pytest.mark.parametrize(
    ("trusted", "subject"), [([], "unknown"), (["127.0.0.1"], "unknown"), (["unix"], "9.9.9.9")]
)
def test_behind_a_unix_socket(tmp_path: Path, trusted: list[str], subject: str) -> None:
    recorder = Recorder()
    proxy = AIProxy(upstream=upstream(FakeUpstream()), anonymous=True, trusted_proxies=trusted)
    app = AIProxyMiddleware(proxy=recorder.watch(proxy))
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        config = uvicorn.Config(app, log_level="warning", proxy_headers=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        with httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=20) as client:
            headers = {"x-forwarded-for": "9.9.9.9"}
            assert client.get("http://app/v1/models", headers=headers).status_code == 200
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
    assert list(recorder.subjects.values()) == [subject]


def test_nobody_stands_behind_more_than_so_many_proxies() -> None:
    chain = ", ".join(["9.9.9.9", *["10.0.0.9"] * 1000])
    assert TRUSTED.client(PEER, _for(chain)) == "10.0.0.9"
    assert (
        TRUSTED.client(PEER, _forwarded(*[f"for={hop}" for hop in chain.split(", ")])) == "10.0.0.9"
    )
