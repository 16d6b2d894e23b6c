"""Django: as a view and as a middleware, under WSGI and under ASGI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from django.http import HttpRequest
from django.urls import path

from ai_proxy_mw import AIProxy, from_route
from ai_proxy_mw.contrib.django import proxy_urls
from ai_proxy_mw.testing import FakeUpstream
from tests.reuse import django_site
from tests.reuse.cell import SLOW, Cell, Recorder, cors, upstream


def signed_in(request: HttpRequest) -> str | None:
    user = django_site.current_name(request)
    if user == "boom":
        raise RuntimeError("boom")
    if user == "slow":
        time.sleep(SLOW)
    return user


def _proxy(fake: FakeUpstream, recorder: Recorder) -> AIProxy:
    return recorder.watch(AIProxy(upstream=upstream(fake), identify=from_route, cors=cors()))


@contextmanager
def as_view(door: str, fake: FakeUpstream, recorder: Recorder) -> Iterator[str]:
    urls = [
        path("login", django_site.login),
        *proxy_urls(_proxy(fake, recorder), identify=signed_in),
    ]
    with django_site.serve(door, urls) as url:
        yield url


@contextmanager
def as_middleware(door: str, fake: FakeUpstream, recorder: Recorder) -> Iterator[str]:
    with django_site.serve(
        door,
        [path("login", django_site.login)],
        [*django_site.MIDDLEWARE, django_site.PROXY],
        AI_PROXY={"proxy": _proxy(fake, recorder), "identify": signed_in},
    ) as url:
        yield url


CELLS = [
    Cell("django-view-wsgi", partial(as_view, "wsgi")),
    Cell("django-view-asgi", partial(as_view, "asgi")),
    Cell("django-middleware-wsgi", partial(as_middleware, "wsgi")),
    Cell("django-middleware-asgi", partial(as_middleware, "asgi")),
]
