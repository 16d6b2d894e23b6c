"""Lanes whose upstreams answer as a test says, in process and without waiting."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ai_proxy_mw import Circuit, Request, Response, Retry, Upstream
from ai_proxy_mw._header_rules import Outward
from ai_proxy_mw._hook_threads import run_sync
from ai_proxy_mw._http import Body
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw._types import RawHeaders
from ai_proxy_mw.routing.breaker import Breaker
from ai_proxy_mw.routing.decide import Policy
from ai_proxy_mw.routing.gate import Gate
from ai_proxy_mw.routing.lane import Lane, Provider
from ai_proxy_mw.routing.router import Router
from ai_proxy_mw.routing.trip import House
from ai_proxy_mw.schema.call import Call
from ai_proxy_mw.stages.relay import body_of, send
from ai_proxy_mw.upstream.base import Outbound

CHAT = "POST /chat/completions"
JSON: RawHeaders = [(b"content-type", b"application/json")]
STREAM: RawHeaders = [(b"content-type", b"text/event-stream")]
ANSWER = b'{"id":"a","choices":[{}],"usage":{"prompt_tokens":7,"completion_tokens":5}}'

Step = Response | BaseException | Callable[[], Awaitable[Response]]


class Pieces(Body):
    """A body of these pieces, which counts how often it was closed."""

    def __init__(self, *pieces: bytes | BaseException) -> None:
        self._pieces = deque(pieces)
        self.closed = 0

    @property
    def ended(self) -> bool:
        return not self._pieces

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.popleft()
        if isinstance(piece, BaseException):
            raise piece
        return piece

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


class Script:
    """A transport that takes one step for each call, and the last one for all further ones."""

    def __init__(self, *steps: Step) -> None:
        self._steps = deque(steps or [good])
        self.sent: list[Outbound] = []
        self.bodies: list[bytes] = []
        self.reads = True
        self.closed = 0

    async def send(self, outbound: Outbound) -> Response:
        self.sent.append(outbound)
        step = self._steps.popleft() if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, BaseException):
            raise step
        if not isinstance(outbound.body, bytes) and self.reads:
            self.bodies.append(b"".join([piece async for piece in outbound.body]))
        return step if isinstance(step, Response) else await step()

    async def aclose(self) -> None:
        self.closed += 1


async def good() -> Response:
    return answer()


async def never() -> Response:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def answer(status: int = 200, body: Body | bytes = ANSWER, headers: RawHeaders = JSON) -> Response:
    content = Pieces(body) if isinstance(body, bytes) else body
    return Response(status, list(headers), content)


class Now:
    """A clock that goes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def lane(
    name: str = "a",
    *steps: Step,
    circuit: Circuit | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    key: str | None = None,
    **options: Any,
) -> Lane:
    options.setdefault("base_url", f"http://{name}.test/v1")
    upstream = Upstream(name=name, **options)
    limit = upstream.max_concurrent
    assert not isinstance(limit, int)
    gate = None if limit is None else Gate(limit)
    provider = Provider(upstream, Script(*steps), gate)
    breaker = Breaker(circuit, name=name, clock=clock)
    outward = Outward(upstream, (), key=key)
    return Lane(provider, outward, breaker, name=name, key=key, weight=upstream.weight)


def script(of: Lane) -> Script:
    transport = of.provider.transport
    assert isinstance(transport, Script)
    return transport


def house(
    *lanes: Lane,
    retry: Retry | None = None,
    fallback: dict[str, list[str]] | None = None,
    now: Now | None = None,
    **options: Any,
) -> House:
    clock = now or Now()
    terms = retry or Retry(attempts=1)
    options.setdefault("sleep", clock.sleep)
    return House(
        router=Router(lanes, fallback or {}, draw=lambda: 0.5),
        policy=Policy(terms, clock=clock, random=lambda: 0.5, may_repeat=lambda: True),
        send=send,
        body_of=body_of,
        attempts=terms.attempts,
        clock=clock,
        **options,
    )


def request(
    model: str | None = "m",
    *,
    endpoint: str = CHAT,
    headers: RawHeaders | None = None,
    query: bytes = b"",
    upload: list[bytes] | None = None,
    **members: Any,
) -> Request:
    """A call that was judged, or an upload of these pieces."""
    method, _, path = endpoint.partition(" ")
    body = json.dumps({"model": model, **members} if model else members).encode()
    pieces = deque([body] if upload is None else upload)

    async def pull() -> tuple[bytes, bool]:
        return pieces.popleft(), not pieces

    found = Request(
        method=method,
        path=path,
        query=query,
        headers=headers or [],
        body=RequestBody(pull, declared=None, limit=10**8),
        client=None,
        request_id="r",
        run_sync=run_sync,
    )
    found.endpoint = endpoint
    if upload is None and method == "POST":
        found.call = Call(endpoint, body)
    return found


def at_rest(*lanes: Lane) -> bool:
    """Whether nothing is held of any lane."""
    gates = [each.provider.gate for each in lanes if each.provider.gate is not None]
    return all(each.in_flight == 0 for each in lanes) and all(
        gate.here().inside == 0 for gate in gates
    )


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def case(work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Nothing goes on when it is over."""

    async def whole() -> None:
        await work()
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    return lambda: asyncio.run(whole())
