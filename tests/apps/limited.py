"""A proxy whose callers are named after the strategy that they are limited by.

`LIMITED_RATE` and `LIMITED_STORAGE` say how much and where it is counted. The model says the id of
the process that relayed the call.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ai_proxy_mw import AIProxy, Limit, Request, Upstream
from ai_proxy_mw.limiting import books
from ai_proxy_mw.stores import guard
from ai_proxy_mw.testing import FAKE_BASE_URL, FakeUpstream


def by_header(request: Request) -> str | None:
    return request.headers.get("x-user")


def by_subject(request: Request) -> list[Limit]:
    strategy: Any = request.subject
    return [Limit(os.environ["LIMITED_RATE"], strategy=strategy)]


def limited_proxy() -> AIProxy:
    # A busy machine may be slower than the patience, and what is uncounted is not what is tested.
    for module in (books, guard):
        vars(module)["PATIENCE"] = 30.0
    fake = FakeUpstream(words=[str(os.getpid())])
    return AIProxy(
        upstream=Upstream(base_url=FAKE_BASE_URL, transport=fake.transport()),
        identify=by_header,
        limits=by_subject,
        limits_storage=os.environ["LIMITED_STORAGE"],
        on_store_failure="deny",
    )


def worker() -> str:
    """The id of this process, which does nothing else for a moment: others take the next call."""
    time.sleep(0.05)
    return str(os.getpid())
