"""The fake upstream in process: as a Transport, its gates and its record."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ai_proxy_mw._config import Timeouts
from ai_proxy_mw._errors import UpstreamDisconnected, UpstreamTimeout
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.testing import FakeServer, FakeUpstream, Gate
from tests.wire import (
    CHAT,
    STREAM,
    collect,
    outbound,
)


@pytest.fixture
def server(fake: FakeUpstream) -> Iterator[FakeServer]:
    with fake.serve() as running:
        yield running


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not ready():
            await asyncio.sleep(0.001)


def events(stream: bytes) -> list[Any]:
    datas = [event.rsplit(b"data: ", 1)[1] for event in stream.split(b"\n\n") if event]
    return [json.loads(data) for data in datas if data != b"[DONE]"]


# The Transport form.

SAMPLES: list[tuple[str, str, Any]] = [
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completions", STREAM),
    ("POST", "/v1/messages", {**STREAM, "max_tokens": 9}),
    ("POST", "/v1/responses", {"model": "m", "input": "x", "stream": True}),
    ("POST", "/v1/audio/speech", {"model": "m", "input": "x"}),
    ("GET", "/v1/files/a/content?x=y", None),
    ("GET", "/v1/nothing", None),
    ("HEAD", "/v1/models", None),
    ("GET", "/elsewhere", None),
]


@pytest.mark.parametrize(("method", "path", "body"), SAMPLES)
def test_both_forms_answer_alike(
    server: FakeServer, fake: FakeUpstream, method: str, path: str, body: Any
) -> None:
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}

    async def in_process() -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        sent = outbound(content, path=path, method=method, headers=headers)
        answer = await fake.transport().send(sent)
        return answer.status, answer.headers, await collect(answer)

    with httpx.Client(trust_env=False) as http:
        url = server.url + path
        answer = http.request(method, url, content=content, headers=headers)
    status, lines, whole = asyncio.run(in_process())
    assert (status, whole) == (answer.status_code, answer.content)
    over_the_wire = {line for line in answer.headers.raw if line[0] != b"transfer-encoding"}
    assert set(lines) == over_the_wire
    first, second = fake.requests
    assert (first.sha256, first.path, first.query) == (second.sha256, second.path, second.query)
    assert (first.outcome, second.outcome) == ("complete", "complete")
    assert first.chunks_sent == second.chunks_sent


def arriving(pieces: list[bytes], error: Exception | None = None) -> RequestBody:
    async def pull() -> tuple[bytes, bool]:
        if not pieces and error is not None:
            raise error
        piece = pieces.pop(0)
        return piece, not pieces and error is None

    return RequestBody(pull, declared=None, limit=1 << 30, patience=5)


def test_a_body_that_arrives(fake: FakeUpstream) -> None:
    body = json.dumps(CHAT).encode()

    async def main() -> None:
        transport = fake.transport()
        answer = await transport.send(outbound(arriving([body[:7], body[7:]])))
        assert b"Hello" in await collect(answer)
        with pytest.raises(StopAsyncIteration):
            await anext(answer.body)
        await transport.aclose()
        with pytest.raises(LookupError):
            await transport.send(outbound(arriving([b"{"], LookupError())))

    asyncio.run(main())
    assert fake.requests[0].json() == CHAT
    assert fake.requests[1].outcome == "disconnected"
    assert fake.requests[1].body_size == 1
    assert fake.calls_open == 0


def test_the_end_of_a_body_is_known(fake: FakeUpstream) -> None:
    async def main() -> None:
        answer = await fake.transport().send(outbound(json.dumps(STREAM).encode()))
        known = [answer.body.ended]
        assert len(events(await collect(answer))) == 6
        known.append(answer.body.ended)
        assert known == [False, True]
        with pytest.raises(StopAsyncIteration):
            await anext(answer.body)
        await answer.body.aclose()

    asyncio.run(main())
    assert fake.requests[0].outcome == "complete"


def test_an_empty_download(server: FakeServer, fake: FakeUpstream) -> None:
    fake.download_bytes = 0

    async def main() -> bytes:
        sent = outbound(b"", path="/v1/files/a/content", method="GET")
        return await collect(await fake.transport().send(sent))

    assert asyncio.run(main()) == b""
    with httpx.Client(trust_env=False) as http:
        assert http.get(f"{server.base_url}/files/a/content").content == b""
    fake.wait_until_quiet()
    assert [seen.outcome for seen in fake.requests] == ["complete"] * 2


def test_faults_in_process(fake: FakeUpstream) -> None:
    fake.disconnect(after="accept")
    fake.disconnect()
    fake.disconnect(after="chunk:1")

    async def main() -> None:
        transport = fake.transport()
        for _ in range(2):
            with pytest.raises(UpstreamDisconnected):
                await transport.send(outbound(json.dumps(STREAM).encode()))
        answer = await transport.send(outbound(json.dumps(STREAM).encode()))
        assert await anext(answer.body)
        with pytest.raises(UpstreamDisconnected):
            await anext(answer.body)
        assert answer.body.ended

    asyncio.run(main())
    assert [seen.outcome for seen in fake.requests] == ["failed"] * 3


@pytest.mark.parametrize(
    ("at", "timeouts", "waited_for"),
    [
        ("accept", Timeouts(write=0.01), "write"),
        ("headers", Timeouts(first_byte=0.01), "first_byte"),
        ("chunk:0", Timeouts(idle=0.01), "idle"),
        ("chunk:2", Timeouts(total=0.05), "total"),
    ],
)
def test_patience_in_process(
    fake: FakeUpstream, at: str, timeouts: Timeouts, waited_for: str
) -> None:
    fake.stall(at=at)

    async def main() -> None:
        sent = outbound(json.dumps(STREAM).encode(), timeouts=timeouts)
        with pytest.raises(UpstreamTimeout) as caught:
            await collect(await fake.transport().send(sent))
        assert caught.value.waited_for == waited_for

    asyncio.run(main())
    assert fake.requests[0].outcome == "disconnected"


def test_cancelling_in_process(fake: FakeUpstream) -> None:
    fake.stall()

    async def main() -> None:
        transport = fake.transport()
        task = asyncio.ensure_future(transport.send(outbound(json.dumps(STREAM).encode())))
        await asyncio.to_thread(fake.wait_for_request)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with fake.hold() as gate:
            answer = await transport.send(outbound(json.dumps(STREAM).encode()))
            reading = asyncio.ensure_future(collect(answer))
            await asyncio.to_thread(gate.wait_until_held)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        closed = await transport.send(outbound(json.dumps(STREAM).encode()))
        await anext(closed.body)
        await closed.body.aclose()

    asyncio.run(main())
    assert [seen.outcome for seen in fake.requests] == ["disconnected"] * 3
    assert fake.wait_for_disconnect(n=3).chunks_sent == 1


def test_one_transport_in_two_loops(fake: FakeUpstream) -> None:
    transport = fake.transport()
    answers = []

    def ask() -> None:
        async def main() -> bytes:
            return await collect(await transport.send(outbound(json.dumps(STREAM).encode())))

        answers.append(asyncio.run(main()))

    with fake.hold() as gate:
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        gate.wait_until_held(2)
        gate.release(3)
        gate.open()
        for thread in threads:
            thread.join(10)
    assert len(answers) == 2
    assert answers[0] == answers[1]


# Gates.


def test_a_release_passes_on_when_its_receiver_is_cancelled() -> None:
    async def main() -> None:
        gate = Gate()
        first = asyncio.ensure_future(gate.walk_through())
        await until(lambda: gate.waiting == 1)
        second = asyncio.ensure_future(gate.walk_through())
        await until(lambda: gate.waiting == 2)
        gate.release()
        first.cancel()
        async with asyncio.timeout(5):
            await second
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.release()
        await gate.walk_through()
        gate.open()
        await gate.walk_through()

    asyncio.run(main())


def test_a_release_skips_those_whose_loop_is_gone() -> None:
    gate = Gate()
    loop = asyncio.new_event_loop()
    walking = gate.walk_through()
    task = loop.create_task(walking)
    loop.run_until_complete(
        asyncio.sleep(
            0,
        )
    )
    assert gate.waiting == 1
    loop.close()
    gate.release()
    assert gate.waiting == 0

    async def main() -> None:
        async with asyncio.timeout(5):
            await gate.walk_through()

    asyncio.run(main())
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    walking.close()


def test_a_gate_tells_who_did_not_come() -> None:
    with pytest.raises(TimeoutError, match="0 of 1"):
        Gate().wait_until_held(timeout=0.01)


# What is recorded.


def post(fake: FakeUpstream, body: bytes) -> None:
    async def main() -> None:
        await fake.transport().send(outbound(body))

    asyncio.run(main())


def test_the_record_is_bounded() -> None:
    fake = FakeUpstream(keep_requests=3, keep_body=4)
    for number in range(5):
        post(fake, b"body%d" % number)
    assert [seen.body for seen in fake.requests] == [b"body"] * 3
    assert fake.wait_for_request(5) is fake.requests[-1]
    with pytest.raises(TimeoutError, match="request 2"):
        fake.wait_for_request(2, timeout=0.01)
    assert "POST /v1/chat/completions, 5 bytes, status=400" in repr(fake.requests[0])
    fake.reset()
    assert fake.requests == []
    post(fake, b"")
    assert fake.wait_for_request(1).body == b""


def test_the_record_holds_no_more_than_64_mib_of_bodies() -> None:
    fake = FakeUpstream(keep_body=48 << 20)
    for _ in range(3):
        post(fake, bytes(40 << 20))
    assert len(fake.requests) == 1
    post(fake, b"")
    assert len(fake.requests) == 2


def test_a_request_that_is_forgotten_before_it_came(fake: FakeUpstream) -> None:
    async def main() -> None:
        started = asyncio.Event()
        go_on = asyncio.Event()

        async def pull() -> tuple[bytes, bool]:
            started.set()
            await go_on.wait()
            return b"{}", True

        body = RequestBody(pull, declared=None, limit=10, patience=5)
        task = asyncio.ensure_future(fake.transport().send(outbound(body)))
        await started.wait()
        fake.reset()
        go_on.set()
        assert (await task).status == 400

    asyncio.run(main())
    assert fake.requests == []
    assert fake.calls_open == 0


def test_waiting_tells_what_was_seen(fake: FakeUpstream) -> None:
    with pytest.raises(TimeoutError, match="disconnect 1 did not come"):
        fake.wait_for_disconnect(timeout=0.01)


def test_a_body_waits_for_its_first_piece_once(fake: FakeUpstream) -> None:
    async def main() -> None:
        transport = fake.transport()
        content = "/v1/files/x/content"
        whole = await transport.send(outbound(b"", path=content, method="GET"))
        await whole.body.ready()
        await whole.body.ready()
        assert not whole.body.ended
        assert len(await collect(whole)) == fake.download_bytes
        fake.download_bytes = 0
        empty = await transport.send(outbound(b"", path=content, method="GET"))
        await empty.body.ready()
        assert await collect(empty) == b""
        fake.disconnect(after="headers")
        fake.download_bytes = 100
        broken = await transport.send(outbound(b"", path=content, method="GET"))
        with pytest.raises(UpstreamDisconnected):
            await broken.body.ready()

    asyncio.run(main())
