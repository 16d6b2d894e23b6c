"""What a circuit can be given."""

from __future__ import annotations

from typing import Any

import pytest

from ai_proxy_mw import ConfigurationError
from ai_proxy_mw._circuit import Circuit


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("ratio", 0, "above 0 and up to 1"),
        ("ratio", 1.01, "above 0 and up to 1"),
        ("ratio", float("nan"), "above 0 and up to 1"),
        ("ratio", True, "above 0 and up to 1"),
        ("ratio", "0.5", "above 0 and up to 1"),
        ("window", 0, "seconds above 0"),
        ("window", float("inf"), "seconds above 0"),
        ("open_for", -1, "seconds above 0"),
        ("longest", None, "seconds above 0"),
        ("longest", 9.9, "at least open_for"),
        ("calls", 0, "a whole number from 1"),
        ("calls", 2.0, "a whole number from 1"),
        ("probes", True, "a whole number from 1"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, value: object, instead: str) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=instead):
        Circuit(**options)


def test_the_borders_are_allowed() -> None:
    Circuit(ratio=1, calls=1, probes=1, open_for=1, longest=1, window=0.001)
