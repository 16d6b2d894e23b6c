"""The value objects for pictures, sounds and files."""

from __future__ import annotations

from typing import Any

import pytest

from ai_proxy_mw import AIProxy, Audio, ConfigurationError, Files, Images


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        (Images, {"urls": "fetch"}, "urls"),
        (Images, {"formats": "png"}, "formats"),
        (Images, {"formats": ["png", "svg"]}, "formats"),
        (Images, {"formats": [1]}, "formats"),
        (Images, {"animated": 1}, "animated"),
        (Images, {"max_bytes": 0}, "max_bytes"),
        (Images, {"max_count": 1.5}, "max_count"),
        (Images, {"max_concurrent": 0}, "max_concurrent"),
        (Images, {"max_redirects": -1}, "max_redirects"),
        (Images, {"cache_bytes": True}, "cache_bytes"),
        (Images, {"timeout": 0}, "timeout"),
        (Images, {"timeout": True}, "timeout"),
        (Images, {"cache_ttl": "1"}, "cache_ttl"),
        (Images, {"allow_hosts": "cdn.example"}, "allow_hosts"),
        (Images, {"deny_hosts": [b"cdn.example"]}, "deny_hosts"),
        (Images, {"networks": "10.0.0.0/8"}, "networks"),
        (Audio, {"formats": ["midi"]}, "formats"),
        (Audio, {"max_bytes": None}, "max_bytes"),
        (Files, {"formats": ["docx"]}, "formats"),
        (Files, {"max_count": 0}, "max_count"),
    ],
)
def test_wrong_arguments_are_refused_by_name(kind: Any, options: Any, word: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{kind.__name__}\({word}="):
        kind(**options)


@pytest.mark.parametrize("option", [{"networks": ["10.0.0.1/8"]}, {"allow_hosts": ["a b"]}])
def test_what_only_the_fetcher_reads_is_refused_at_construction_too(option: Any) -> None:
    with pytest.raises(ConfigurationError):
        AIProxy(
            upstream="http://u.example/v1",
            anonymous=True,
            images=Images(urls="inline", **option),
        )


def test_lists_are_frozen() -> None:
    names = ["png"]
    images = Images(formats=names, allow_hosts=["cdn.example"])
    names.append("gif")
    assert (images.formats, images.allow_hosts) == (("png",), ("cdn.example",))
    assert Audio(formats=None).formats is None
    assert Files(formats=None).formats is None
