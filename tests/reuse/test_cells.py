"""The promises of reuse, for each host framework, door and way."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ai_proxy_mw.testing import FakeUpstream
from tests.reuse.cell import PAGE, Cell, Recorder
from tests.reuse.cells import CELLS

CALLS = int(os.environ.get("REUSE_CALLS", "400"))
"""How many calls the mixed users make; CI makes 10,000."""

USERS = [f"user{number}" for number in range(50)]


@dataclass
class Served:
    url: str
    fake: FakeUpstream
    recorder: Recorder


@pytest.fixture(scope="module", params=CELLS, ids=lambda cell: cell.name)
def _served(request: pytest.FixtureRequest) -> Iterator[Served]:
    cell: Cell = request.param
    fake, recorder = FakeUpstream(), Recorder()
    with cell.serve(fake, recorder) as url:
        yield Served(url, fake, recorder)


@pytest.fixture
def served(_served: Served) -> Served:
    _served.fake.reset()
    _served.recorder.subjects.clear()
    return _served


def question(user: str) -> dict[str, Any]:
    return {"model": "fake-1", "messages": [{"role": "user", "content": f"I am {user}"}]}


@contextmanager
def signed_in(served: Served, user: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=20) as client:
        assert client.post("/login", params={"user": user}).status_code < 400
        yield client


def test_logged_out_is_401_that_a_page_can_read(served: Served) -> None:
    answer = httpx.post(
        f"{served.url}/v1/chat/completions", json=question("mallory"), headers={"origin": PAGE}
    )
    assert answer.status_code == 401
    assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
    assert "www-authenticate" in answer.headers
    assert answer.headers["x-request-id"]
    assert served.fake.requests == []


def test_a_preflight_needs_no_login(served: Served) -> None:
    answer = httpx.options(
        f"{served.url}/v1/chat/completions",
        headers={
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        },
    )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-credentials"] == "true"


def test_logged_in_passes_as_the_apps_user(served: Served) -> None:
    with signed_in(served, "alice") as client:
        answer = client.post(
            "/v1/chat/completions", json=question("alice"), headers={"x-request-id": "call-1"}
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["object"] == "chat.completion"
    assert served.recorder.subjects["call-1"] == "alice"
    [seen] = served.fake.requests
    assert b"I am alice" in seen.body
    assert all(name != b"cookie" for name, _ in seen.headers)


def test_an_answer_streams(served: Served) -> None:
    with signed_in(served, "alice") as client:
        body = {**question("alice"), "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            text = "".join(answer.iter_text())
    assert text.endswith("data: [DONE]\n\n")


def test_what_is_not_there_and_what_may_not_be_done(served: Served) -> None:
    with signed_in(served, "alice") as client:
        assert client.get("/v1/models").status_code == 200
        assert client.head("/v1/models").status_code == 200
        assert client.get("/v1/admin").status_code == 404
        assert client.get("/v1/admin").json()["error"]["code"] == "unknown_url"
        refused = client.delete("/v1/chat/completions")
        assert refused.status_code == 405
        assert "POST" in refused.headers["allow"]
    assert {seen.path for seen in served.fake.requests} == {"/v1/models"}


def test_a_hook_that_raises_is_500_and_admits_nobody(served: Served) -> None:
    with signed_in(served, "boom") as client:
        answer = client.post("/v1/chat/completions", json=question("boom"))
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "boom" not in answer.text
    assert served.fake.requests == []


def test_another_sites_page_is_refused(served: Served) -> None:
    with signed_in(served, "alice") as client:
        for origin, status in (("https://evil.example", 403), (PAGE, 200)):
            answer = client.post(
                "/v1/chat/completions",
                json=question("alice"),
                headers={"origin": origin, "sec-fetch-site": "cross-site"},
            )
            assert answer.status_code == status, answer.text
    assert len(served.fake.requests) == 1


@pytest.mark.slow
def test_a_slow_hook_blocks_nobody_else(served: Served) -> None:
    answered: list[str] = []

    def call(client: httpx.Client, user: str) -> None:
        assert client.post("/v1/chat/completions", json=question(user)).status_code == 200
        answered.append(user)

    with signed_in(served, "slow") as slow, signed_in(served, "quick") as quick:
        thread = threading.Thread(target=call, args=(slow, "slow"))
        thread.start()
        for _ in range(5):
            call(quick, "quick")
        assert answered == ["quick"] * 5
        thread.join(20)
    assert answered[-1] == "slow"


@pytest.mark.slow
def test_no_user_ever_sees_anothers_identity(served: Served) -> None:
    def calls(user: str) -> None:
        with signed_in(served, user) as client:
            cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        with closing(HTTPConnection(urlsplit(served.url).netloc, timeout=60)) as connection:
            ask(connection, user, cookie)

    def ask(connection: HTTPConnection, user: str, cookie: str) -> None:
        for number in range(CALLS // len(USERS)):
            headers = {
                "cookie": cookie,
                "content-type": "application/json",
                "x-request-id": f"{user}-{number}",
            }
            body = json.dumps(question(f"{user}."))
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()

    with ThreadPoolExecutor(len(USERS)) as pool:
        for done in [pool.submit(calls, user) for user in USERS]:
            done.result()
    each = CALLS // len(USERS)
    assert Counter(served.recorder.subjects.values()) == dict.fromkeys(USERS, each)
    for request_id, subject in served.recorder.subjects.items():
        assert request_id.startswith(f"{subject}-")
    if CALLS <= 1000:  # the fake keeps the last requests only
        asked = Counter(
            json.loads(seen.body)["messages"][0]["content"] for seen in served.fake.requests
        )
        assert asked == {f"I am {user}.": each for user in USERS}
