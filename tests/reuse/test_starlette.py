"""What the ready-made functions for Starlette take for a user, and what they refuse."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser

from ai_proxy_mw import ConfigurationError, Identity, Request
from ai_proxy_mw._hook_threads import run_sync
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.contrib.starlette import authenticated_user, session_user


class Member(BaseUser):
    """A user as the documentation of Starlette shows them: without an identity."""

    number = 7

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return "Alice"


class Named(Member):
    """As Starlette's SimpleUser was before it had an identity."""

    username = "bob"


class Stranger:
    """Of another library."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


async def nothing() -> tuple[bytes, bool]:
    return b"", True


async def ask(identify: Any, scope: dict[str, Any] | None) -> Any:
    call = Request(
        method="GET",
        path="/models",
        query=b"",
        headers=[],
        body=RequestBody(nothing, declared=None, limit=1),
        client=None,
        request_id="req_1",
        run_sync=run_sync,
        scope=scope,
    )
    return await identify(call)


def asked(identify: Any, **scope: Any) -> Any:
    return asyncio.run(ask(identify, scope))


def test_starlettes_own_users_need_nothing() -> None:
    assert asked(authenticated_user(), user=SimpleUser("alice")) == "alice"
    assert asked(authenticated_user(), user=UnauthenticatedUser()) is None
    assert asked(authenticated_user(), user=Named()) == "bob"
    assert asked(authenticated_user(), user=None) is None


def test_the_app_says_what_the_subject_is() -> None:
    by_number = authenticated_user(subject=lambda user: Identity(str(user.number), scope="team"))
    assert asked(by_number, user=Member()) == Identity("7", scope="team")
    assert asked(by_number, user=UnauthenticatedUser()) is None
    nobody = authenticated_user(subject=lambda user: None)
    assert asked(nobody, user=Member()) is None


@pytest.mark.parametrize(
    "user",
    [
        Member(),
        Stranger(is_authenticated=True, display_name="Alice"),
        Stranger(is_authenticated=True, identity=7),
        Stranger(is_authenticated=lambda: False, identity="alice"),
        Stranger(is_authenticated=1, identity="alice"),
        Stranger(is_authenticated=None, identity="alice"),
    ],
)
def test_a_user_that_could_be_taken_for_another_is_a_fault(user: Any) -> None:
    with pytest.raises(TypeError) as caught:
        asked(authenticated_user(), user=user)
    assert "subject=lambda user" in str(caught.value) or "must be a property" in str(caught.value)


@pytest.mark.parametrize(
    ("identify", "middleware"),
    [(authenticated_user(), "AuthenticationMiddleware"), (session_user(), "SessionMiddleware")],
)
@pytest.mark.parametrize("scope", [{}, None])
def test_without_its_middleware_around_it_is_a_fault(
    identify: Any, middleware: str, scope: dict[str, Any] | None
) -> None:
    with pytest.raises(RuntimeError, match=rf"add_middleware\({middleware}, \.\.\.\) after"):
        asyncio.run(ask(identify, scope))


def test_a_session_names_the_user() -> None:
    assert asked(session_user(), session={"user_id": "alice"}) == "alice"
    assert asked(session_user(), session={"user_id": 42}) == "42"
    assert asked(session_user("who"), session={"who": "bob", "user_id": "alice"}) == "bob"
    assert asked(session_user(), session={"user_id": None}) is None
    assert asked(session_user(), session={}) is None


@pytest.mark.parametrize("value", [True, False, 1.0, ["alice"], {"id": 1}, b"alice"])
def test_a_session_that_names_nothing_clear_is_a_fault(value: object) -> None:
    with pytest.raises(TypeError, match="as text or int"):
        asked(session_user(), session={"user_id": value})


def test_wrong_arguments_are_refused_at_once() -> None:
    subject: Any = "id"
    with pytest.raises(ConfigurationError, match="subject=lambda"):
        authenticated_user(subject=subject)
    for key in ("", None, 7):
        wrong: Any = key
        with pytest.raises(ConfigurationError, match="session_user"):
            session_user(wrong)
