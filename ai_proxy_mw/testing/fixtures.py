"""A pytest plugin: `pytest_plugins = ["ai_proxy_mw.testing.fixtures"]` in a conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ai_proxy_mw.testing import FakeServer, FakeUpstream


@pytest.fixture
def fake_upstream() -> Iterator[FakeUpstream]:
    """A FakeUpstream for one test; its gates are open when the test is over."""
    fake = FakeUpstream()
    yield fake
    fake.reset()


@pytest.fixture
def fake_upstream_server(fake_upstream: FakeUpstream) -> Iterator[FakeServer]:
    """The same fake on a port of its own."""
    with fake_upstream.serve() as server:
        yield server
