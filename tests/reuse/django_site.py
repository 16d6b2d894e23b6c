"""A Django site with real users, for the cells and tests of Django; its settings are global."""

from __future__ import annotations

import atexit
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import django
from asgiref.local import Local
from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.test.utils import override_settings
from django.utils.decorators import sync_and_async_middleware
from django.views.decorators.csrf import csrf_exempt

from tests.servers import serve_asgi, serve_wsgi

_folder = tempfile.TemporaryDirectory()
atexit.register(_folder.cleanup)

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "tests.reuse.django_site.sets_current",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
"""As a new project has them, but for messages."""

PROXY = "ai_proxy_mw.contrib.django.ProxyMiddleware"

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(Path(_folder.name) / "db"),
            "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    LOGGING_CONFIG=None,
    MIDDLEWARE=MIDDLEWARE,
    MIGRATION_MODULES={"auth": None, "contenttypes": None},
    ROOT_URLCONF=(),
    SECRET_KEY="a secret of the tests",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    USE_TZ=True,
)
django.setup()
call_command("migrate", run_syncdb=True, verbosity=0)

thread_current = threading.local()
context_current: ContextVar[str | None] = ContextVar("context_current")
django_current = Local()


@sync_and_async_middleware
def sets_current(get_response: Any) -> Any:
    """A middleware of the app that keeps the user's name where its doors' apps keep such things."""

    def sync_middleware(request: HttpRequest) -> HttpResponseBase:
        thread_current.user = django_current.user = request.session.get("name")
        response: HttpResponseBase = get_response(request)
        return response

    async def async_middleware(request: HttpRequest) -> HttpResponseBase:
        context_current.set(request.session.get("name"))
        django_current.user = request.session.get("name")
        response: HttpResponseBase = await get_response(request)
        return response

    return async_middleware if iscoroutinefunction(get_response) else sync_middleware


def current_name(request: HttpRequest) -> str | None:
    """The name of who is signed in, whom the context variables and thread-locals must name too."""
    name = request.user.get_username() or None
    if isinstance(request, ASGIRequest):
        assert context_current.get() == name
    else:
        assert thread_current.user == name
    assert django_current.user == name
    return name


@csrf_exempt
def login(request: HttpRequest) -> HttpResponse:
    from django.contrib import auth
    from django.contrib.auth.models import User

    name = request.GET["user"]
    user, _ = User.objects.get_or_create(username=name, defaults={"password": "!"})
    auth.login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    request.session["name"] = name
    return HttpResponse("welcome")


def primary_key(name: str) -> str:
    from django.contrib.auth.models import User

    return str(User.objects.get(username=name).pk)


@contextmanager
def serve(
    door: str, urls: Sequence[Any], middleware: Sequence[str] = MIDDLEWARE, **options: Any
) -> Iterator[str]:
    """The site over a real socket, by the door `wsgi` or `asgi`; gives its URL."""
    with override_settings(ROOT_URLCONF=tuple(urls), MIDDLEWARE=list(middleware), **options):
        served = (
            serve_wsgi(get_wsgi_application())
            if door == "wsgi"
            else serve_asgi(get_asgi_application())
        )
        with served as url:
            yield url
