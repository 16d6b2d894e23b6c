"""Base URLs: where they lead, and what stands in the place of a model."""

from __future__ import annotations

import pytest

from ai_proxy_mw import ConfigurationError
from ai_proxy_mw._base_url import Place, authority, can_stand_in_path, place_of
from ai_proxy_mw.upstream.base import Origin


def test_a_place() -> None:
    found = place_of("https://a.test/openai/deployments/{model}/")
    assert found == Place(Origin("https", "a.test", 443), "/openai/deployments/{model}")
    assert authority(found.origin) == "a.test"
    assert authority(Origin("http", "::1", 8080)) == "[::1]:8080"


@pytest.mark.parametrize(
    "url",
    [
        "https://a.test/{name}",
        "https://a.test/x{model}",
        "https://a.test/{model}.x",
        "https://a.test/{model",
        "https://{model}.test/v1",
        "https://{model}/v1",
        "https://a.test/{{model}}",
    ],
)
def test_braces_stand_for_the_model_alone(url: str) -> None:
    with pytest.raises(ConfigurationError, match="braces"):
        place_of(url)


def test_names_that_are_one_segment() -> None:
    for name in ("gpt-4.1", "a", "m:latest", "ft:gpt@x", "A_1~+,="):
        assert can_stand_in_path(name), name
    for name in (
        "",
        ".",
        "..",
        "-a",
        "a/b",
        "a\\b",
        "a%2fb",
        "a?b",
        "a#b",
        "a;b",
        "a b",
        "a\n",
        "é",
    ):
        assert not can_stand_in_path(name), name
