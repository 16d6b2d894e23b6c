"""Which addresses and hosts may be asked, and how they are read."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._media import Images
from ai_proxy_mw.fetching.hosts import Hosts, read_host
from ai_proxy_mw.fetching.urls import Rules
from tests.fetching._helpers import refused


def _rules(**policy: Any) -> Rules:
    return Rules(Images(urls="inline", **policy))


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("https://example.com/a.png", "example.com", b"/a.png"),
        ("https://example.com", "example.com", b"/"),
        ("https://example.com?a=1", "example.com", b"/?a=1"),
        ("https://example.com#f", "example.com", b"/"),
        ("HTTPS://EXAMPLE.COM:443/A?B#C?D", "example.com", b"/A?B"),
        ("https://my_bucket.example.com/a%2Fb", "my_bucket.example.com", b"/a%2Fb"),
        ("https://bücher.example.com/ü", "xn--bcher-kva.example.com", b"/%C3%BC"),
        ("https://xn--bcher-kva.example.com/", "xn--bcher-kva.example.com", b"/"),
        ("https://ｅxample。com/", "example.com", b"/"),  # noqa: RUF001
        ("https://93.184.216.34/", "93.184.216.34", b"/"),
        ("https://[2606:4700:0:0::1]/", "[2606:4700::1]", b"/"),
        ("https://a.example.com/?X-Sig=a+b/c%3D&d='[1]'", "a.example.com", None),
        ("https://3com.com/", "3com.com", b"/"),
        ("https://0x7f.com/", "0x7f.com", b"/"),
        ("https://example.com/user@host:8080//x", "example.com", b"/user@host:8080//x"),
        (f"https://{'a' * 63}.com/", f"{'a' * 63}.com", b"/"),
    ],
)
def test_read(url: str, authority: str, target: bytes | None) -> None:
    web = _rules().read(url)
    assert (web.scheme, web.authority, web.port) == ("https", authority, 443)
    assert web.target == (b"/?X-Sig=a+b/c%3D&d='[1]'" if target is None else target)


def test_the_host_header_names_a_port_that_is_not_the_schemes() -> None:
    hosts = ["example.com", "[2606:4700::1]"]
    rules = _rules(allow_hosts=hosts, allow_http=True)
    assert rules.read("http://example.com:80/").authority == "example.com"
    assert rules.read("http://example.com:443/").authority == "example.com:443"
    assert rules.read("https://[2606:4700::1]:8443/").authority == "[2606:4700::1]:8443"
    assert rules.read("https://[2606:4700::1]/").name == "2606:4700::1"


@pytest.mark.parametrize("port", [80, 22, 6379, 8443, 65535])
def test_other_ports_are_for_named_hosts(port: int) -> None:
    with refused("image_url_forbidden"):
        _rules().read(f"https://example.com:{port}/")
    web = _rules(allow_hosts=["example.com"]).read(f"https://example.com:{port}/")
    assert web.port == port


def test_what_is_wrong_is_told() -> None:
    for url, words in {
        "https://user@example.com/": "must not hold a user name or password",
        "https://127.1/": "has a host that is neither a name nor a plainly written address",
        "https://example.com:port/": "has a host or port that cannot be read",
        "https://example.com/a b": "holds a space, a control character or a backslash",
        "example.com/a.png": "is not a whole URL, like https://example.com/picture.png",
        "https://example.com/" + "a" * 8192: "is longer than 8192 characters",
    }.items():
        with refused("invalid_image_url") as caught:
            _rules().read(url)
        assert caught.value.message == f"The picture's address {words}."


def test_plain_http_must_be_allowed() -> None:
    with refused("invalid_image_url") as caught:
        _rules().read("http://example.com/")
    assert caught.value.message == "The picture's address must begin with https://."
    assert _rules(allow_http=True).read("http://example.com/").port == 80
    with refused("image_url_forbidden"):
        _rules(allow_http=True).read("http://example.com:443/")


def test_a_redirect_from_https_to_http_must_be_allowed() -> None:
    url = "https://example.com/a"
    with refused("invalid_image_url") as caught:
        _rules().follow(url, "http://example.com/b")
    assert caught.value.message.startswith("After a redirect: ")
    joined, web = _rules(allow_http=True).follow(url, "http://example.com/b")
    assert (joined, web.scheme) == ("http://example.com/b", "http")


@pytest.mark.parametrize(
    ("location", "joined"),
    [
        ("/b", "https://example.com/b"),
        ("b?c", "https://example.com/d/b?c"),
        ("../b", "https://example.com/b"),
        ("?c", "https://example.com/d/a?c"),
        ("//other.com/b", "https://other.com/b"),
        ("https://other.com/b", "https://other.com/b"),
    ],
)
def test_relative_redirects(location: str, joined: str) -> None:
    assert _rules().follow("https://example.com/d/a", location)[0] == joined


def test_an_allow_list_is_all_there_is() -> None:
    rules = _rules(allow_hosts=["Example.com", "*.cdn.example.net", "93.184.216.34", "bücher.de"])
    for host in (
        "example.com",
        "EXAMPLE.com",
        "a.cdn.example.net",
        "a.b.cdn.example.net",
        "93.184.216.34",
        "xn--bcher-kva.de",
        "bücher.de",
    ):
        assert rules.read(f"https://{host}/")
    for host in (
        "a.example.com",
        "badexample.com",
        "example.com.evil.org",
        "cdn.example.net",
        "badcdn.example.net",
        "93.184.216.35",
        "xn--bcher-kva.com",
    ):
        with refused("image_url_forbidden"):
            rules.read(f"https://{host}/")


def test_an_empty_allow_list_allows_nothing() -> None:
    with refused("image_url_forbidden"):
        _rules(allow_hosts=[]).read("https://example.com/")


def test_a_deny_list_goes_first() -> None:
    rules = _rules(
        allow_hosts=["*.example.com"], deny_hosts=["evil.example.com", "*.bad.example.com"]
    )
    assert rules.read("https://bad.example.com/")
    for host in ("evil.example.com", "EVIL.example.com", "ｅvil.example.com", "a.bad.example.com"):  # noqa: RUF001
        with refused("image_url_forbidden"):
            rules.read(f"https://{host}/")
    with refused("image_url_forbidden"):
        _rules(deny_hosts=["93.184.216.34"]).read("https://93.184.216.34/")


def test_a_list_cannot_open_what_is_inside() -> None:
    rules = _rules(allow_hosts=["localhost", "127.0.0.1", "[::1]", "metadata.google.internal"])
    for host in ("localhost", "127.0.0.1", "[::1]", "metadata.google.internal"):
        with refused("image_url_forbidden"):
            rules.read(f"https://{host}/")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "*.",
        "*.*.com",
        "a.*.com",
        "a*.com",
        "https://a.com",
        "a.com/",
        "a.com:80",
        "[::1",
        "::1",
        "127.1",
        "*.127.0.0.1",
        "*.[::1]",
        "a.com.",
        "a b",
    ],
)
def test_a_list_that_cannot_be_read(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Images\(deny_hosts="):
        Hosts([pattern], "deny_hosts")


def test_addresses_are_compared_as_addresses() -> None:
    assert read_host("[2606:4700::0001]") == ip_address("2606:4700::1")
    assert read_host("[2606:4700::0001]") in Hosts(["[2606:4700:0::1]"], "allow_hosts")
