"""No more calls at a time than may be, over a real socket, through both doors."""

from __future__ import annotations

import http.client
import itertools
import json
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from ai_proxy_mw import AIProxy, Concurrency, MemoryCache, Upstream
from ai_proxy_mw.testing import FakeUpstream
from tests.conftest import IN_PROCESS
from tests.servers import gunicorn, serve_process

USERS = {"alice": "sk-alice", "bob": "sk-bob"}
WAIT = 30.0
AT_ONCE = 10.0  # on a busy machine, too; those who wait wait longer

_numbers = itertools.count()


class Call:
    """A call on its way, over a connection of its own."""

    def __init__(self, url: str, user: str, body: bytes | None, *, missing: int = 0) -> None:
        address = urlsplit(url)
        assert address.hostname
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        headers = {"authorization": f"Bearer {USERS[user]}", "content-type": "application/json"}
        if body is None:
            self._connection.request("GET", "/v1/models", headers=headers)
        else:
            headers["content-length"] = str(len(body) + missing)
            self._connection.request("POST", "/v1/chat/completions", body, headers)
        self._answer: http.client.HTTPResponse | None = None

    def answered(self, within: float = 0.0) -> bool:
        """Whether the head of an answer is there."""
        return self._answer is not None or any_answered([self], within) == [self]

    @property
    def answer(self) -> http.client.HTTPResponse:
        if self._answer is None:
            self._answer = self._connection.getresponse()
        return self._answer

    @property
    def status(self) -> int:
        return self.answer.status

    def read(self) -> bytes:
        return self.answer.read()

    def fileno(self) -> int:
        return self._connection.sock.fileno()

    def leave(self) -> None:
        if self._answer is not None:
            self._answer.close()
        self._connection.close()


def any_answered(calls: list[Call], within: float) -> list[Call]:
    return select.select(calls, [], [], within)[0]


class Crowded:
    def __init__(self, url: str, fake: FakeUpstream) -> None:
        self.url = url
        self.fake = fake
        self.calls: list[Call] = []

    def call(self, user: str = "alice", **more: Any) -> Call:
        """Each asks something else, so that none is answered with another's answer."""
        content = more.pop("content", f"Question {next(_numbers)}")
        messages = [{"role": "user", "content": content}]
        body = {"model": "fake-1", "messages": messages, **more}
        return self._keep(Call(self.url, user, json.dumps(body).encode()))

    def raw(self, body: bytes | None, *, missing: int = 0) -> Call:
        return self._keep(Call(self.url, "alice", body, missing=missing))

    def _keep(self, call: Call) -> Call:
        self.calls.append(call)
        return call

    def fill(self, user: str = "alice", n: int = 5, **more: Any) -> tuple[list[Call], list[Call]]:
        """So many calls, until those are refused that must be: who goes on, and who is refused."""
        calls = [self.call(user, **more) for _ in range(n)]
        refused: list[Call] = []
        deadline = time.monotonic() + AT_ONCE
        while len(refused) < n - 4:
            assert time.monotonic() < deadline
            refused += any_answered([call for call in calls if call not in refused], 0.1)
        return [call for call in calls if call not in refused], refused

    def forget(self) -> None:
        while self.calls:
            self.calls.pop().leave()

    def until_empty(self) -> None:
        """Until all that have left are known to have."""
        deadline = time.monotonic() + AT_ONCE
        statuses: list[int] = []
        while statuses != [200] * 4:
            assert time.monotonic() < deadline
            with self.fake.hold("headers"):
                calls = [self.call() for _ in range(4)]
                any_answered(calls, 0.05)
            statuses = [call.status for call in calls]
            self.forget()
        self.fake.reset()

    def until_room(self, user: str = "alice") -> Call:
        """A call that is not turned away, as soon as there may be one."""
        deadline = time.monotonic() + AT_ONCE
        while (call := self.call(user)).answered(within=0.2):
            assert call.status == 503
            assert time.monotonic() < deadline
        return call


@contextmanager
def crowded(kind: str, **options: Any) -> Iterator[Crowded]:
    """Two at a time, two wait."""
    fake = FakeUpstream()
    with fake.serve() as upstream:
        if kind == "gunicorn":
            env = {
                "AI_PROXY_UPSTREAM": upstream.base_url,
                "AI_PROXY_API_KEYS": ",".join(f"{user}={key}" for user, key in USERS.items()),
                "AI_PROXY_LIMITS": "1000/minute",
                "AI_PROXY_CACHE": "memory",
                "AI_PROXY_MAX_CONCURRENT": f"2,queue=2,wait={WAIT}",
            }
            threads = ("-k", "gthread", "-w", "1", "--threads", "64")
            served: Any = serve_process(gunicorn("tests.apps.flask_app:app", *threads), env)
        else:
            proxy = AIProxy(
                upstream=Upstream(base_url=upstream.base_url),
                api_keys=USERS,
                limits=["1000/minute"],
                cache=MemoryCache(),
                **{"max_concurrent": Concurrency(2, queue=2, wait=WAIT), **options},
            )
            served = IN_PROCESS[kind](proxy)
        with served as server:
            house = Crowded(server if isinstance(server, str) else server.url, fake)
            try:
                yield house
            finally:
                fake.reset()
                house.forget()


@pytest.fixture(
    scope="module", params=[*IN_PROCESS, pytest.param("gunicorn", marks=pytest.mark.slow)]
)
def _crowded(request: pytest.FixtureRequest) -> Iterator[Crowded]:
    with crowded(request.param) as house:
        yield house


@pytest.fixture
def house(_crowded: Crowded) -> Iterator[Crowded]:
    """Nobody inside, nobody waits."""
    yield _crowded
    _crowded.fake.reset()
    _crowded.forget()
    _crowded.until_empty()


def test_two_are_served_two_wait_and_the_fifth_is_told_at_once(house: Crowded) -> None:
    with house.fake.hold("headers") as gate:
        going, [refused] = house.fill()
        gate.wait_until_held(2)
        assert len(house.fake.requests) == 2
        assert refused.status == 503
        assert refused.answer.headers["retry-after"] == str(int(WAIT))
        assert refused.answer.headers["x-request-id"]
        assert refused.answer.headers["content-type"] == "application/json"
        [error] = json.loads(refused.read()).values()
        assert error == {
            "message": "Too many calls are under way just now. Try again in 30 s.",
            "type": "server_error",
            "param": None,
            "code": "overloaded",
        }
        gate.release()
        gate.wait_until_held(2)  # the third is there
        assert len(house.fake.requests) == 3
        gate.open()
    assert [call.status for call in going] == [200] * 4
    assert all(b"chat.completion" in call.read() for call in going)


def test_one_inside_that_leaves_makes_room(house: Crowded) -> None:
    with house.fake.hold("headers") as gate:
        inside = [house.call(), house.call()]
        gate.wait_until_held(2)
        waits = house.call()
        assert not waits.answered(within=0.1)
        inside[0].leave()
        house.fake.wait_for_request(3)
        gate.open()
        assert [inside[1].status, waits.status] == [200, 200]


def test_a_waiting_one_that_leaves_makes_room(house: Crowded) -> None:
    with house.fake.hold("headers") as gate:
        inside = [house.call(), house.call()]
        gate.wait_until_held(2)
        going, _ = house.fill()
        waiting = [call for call in going if not call.answered(within=0.2)]
        assert len(waiting) == 2
        waiting[0].leave()
        late = house.until_room()
        gate.open()
        assert [call.status for call in (*inside, waiting[1], late)] == [200] * 4
        # Who left has not cost anything.
        assert len(house.fake.requests) == 4


def test_a_waiting_one_that_leaves_in_mid_body_makes_room(house: Crowded) -> None:
    with house.fake.hold("headers") as gate:
        inside = [house.call(), house.call()]
        gate.wait_until_held(2)
        half = house.raw(b"{", missing=100)
        assert not half.answered(within=0.1)
        waits = house.call()
        assert not waits.answered(within=0.1)
        half.leave()
        late = house.until_room()
        gate.open()
        assert [call.status for call in (*inside, waits, late)] == [200] * 4


def test_one_with_many_calls_does_not_keep_another_out(house: Crowded) -> None:
    with house.fake.hold("headers") as gate:
        going, refused = house.fill(n=50)
        assert {call.status for call in refused} == {503}
        bobs = house.call("bob")
        assert select.select(going, [], [], AT_ONCE)[0]  # the last of those who wait makes room
        pressing = [house.call() for _ in range(5)]
        assert [call.status for call in pressing] == [503] * 5
        gate.release(2)
        gate.wait_until_held(2)
        gate.release(2)
        assert bobs.status == 200
        gate.open()
        assert sorted(call.status for call in going) == [200, 200, 200, 503]


def test_a_stream_has_its_place_until_its_end(house: Crowded) -> None:
    with house.fake.hold() as gate:
        streams = [house.call(stream=True) for _ in range(2)]
        gate.release(2)
        assert [call.status for call in streams] == [200, 200]
        waits = house.call()
        assert not waits.answered(within=0.1)
        # A caller that leaves in mid-stream frees it, too.
        streams[0].leave()
        assert waits.answered(within=AT_ONCE)
        assert waits.status == 200
        gate.release()
        assert house.call(stream=True).status == 200
        waits = house.call()
        assert not waits.answered(within=0.1)
        gate.open()
        assert waits.status == 200
        assert streams[1].read().endswith(b"data: [DONE]\n\n")


def test_what_fails_frees_its_place(house: Crowded) -> None:
    for _ in range(3):
        assert house.raw(b"{").status == 400
        house.fake.fail(500)
        assert house.call().status == 500
        house.fake.disconnect(after="headers")
        assert house.call().status == 502
        house.fake.disconnect(after="chunk:1")
        stream = house.call(stream=True)
        assert stream.status == 200
        assert b"upstream_disconnected" in stream.read()
    assert house.call().status == 200


def test_what_the_proxy_answers_itself_waits_like_all(house: Crowded) -> None:
    question: dict[str, Any] = {"content": "Again?", "temperature": 0}
    assert house.call(**question).read()
    hit = house.call(**question)
    assert "hit" in hit.answer.headers["cache-status"]
    with house.fake.hold("headers") as gate:
        inside = [house.call(), house.call()]
        gate.wait_until_held(2)
        hit = house.call(**question)
        listing = house.raw(None)
        assert not hit.answered(within=0.2)
        gate.open()
        assert [call.status for call in (*inside, hit, listing)] == [200] * 4


def test_who_is_shed_is_not_counted(house: Crowded) -> None:
    def remaining(call: Call) -> int:
        assert call.status == 200
        return int(call.answer.headers["x-ratelimit-remaining-requests"])

    before = remaining(house.call())
    with house.fake.hold("headers") as gate:
        going, refused = house.fill(n=9)
        assert len(refused) == 5
        assert "x-ratelimit-remaining-requests" not in refused[0].answer.headers
        gate.open()
        # One that another test has let go of may still be counted meanwhile; five would be those.
        assert before - 9 < min(remaining(call) for call in going) <= before - 4


@pytest.mark.parametrize("kind", IN_PROCESS)
def test_who_has_waited_long_enough_is_told(kind: str) -> None:
    shortly = Concurrency(1, wait=0.05)
    with crowded(kind, max_concurrent=shortly) as house, house.fake.hold("headers") as gate:
        inside = house.call()
        gate.wait_until_held()
        waits = house.call()
        assert waits.status == 503
        assert waits.answer.headers["retry-after"] == "1"
        gate.open()
        assert inside.status == 200
        assert house.call().status == 200


@pytest.mark.parametrize("kind", IN_PROCESS)
def test_a_long_body_comes_whole_after_the_waiting(kind: str) -> None:
    with crowded(kind, max_concurrent=1) as house, house.fake.hold("headers") as gate:
        inside = house.call()
        gate.wait_until_held()
        text = "".join(map(str, range(100_000)))
        waits = house.call(content=text)
        assert not waits.answered(within=0.1)
        gate.open()
        assert waits.status == 200
        assert inside.status == 200
        assert house.fake.requests[-1].json()["messages"][0]["content"] == text
