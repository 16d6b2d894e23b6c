"""How long each step to an upstream takes, and where it fails."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from ai_proxy_mw._base_url import MODEL, Place, authority

if TYPE_CHECKING:
    import httpx

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, the best first. Raises OSError."""

Trace = Callable[[str, object], Awaitable[None]]

STEPS = ("dns", "connect", "tls", "first_byte", "total")

TOKENS = 16
"""The most that an answer is asked to have."""

_LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
"""Some models refuse the first, and some do not know the second."""

_MOST_BYTES = 16 << 20
_MOST_ERROR_BYTES = 64 << 10
_MOST_ADDRESSES = 3
_GIVE_UP = 3
"""Failures without one success after which a target is not asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is asked: a model of an upstream, or the upstream for its list of models."""

    upstream: str
    place: Place
    key: str | None = field(repr=False)
    model: str | None

    @property
    def path(self) -> str:
        path = self.place.path.replace(MODEL, self.model or "")
        return f"{path}/models" if self.model is None else f"{path}/chat/completions"

    @property
    def headers(self) -> dict[str, str]:
        key = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        # What is not packed cannot unpack to more than is counted.
        return {"host": authority(self.place.origin), "accept-encoding": "identity", **key}

    def body(self, limit_name: str) -> dict[str, Any] | None:
        if self.model is None:
            return None
        hello = [{"role": "user", "content": "Say hello."}]
        return {"model": self.model, "messages": hello, "stream": True, limit_name: TOKENS}


@dataclass(slots=True)
class Row:
    """What has come of a target, on new connections or on kept ones."""

    target: Target
    connection: str
    times: list[Mapping[str, float]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return len(self.times) + self.errors.total()

    def spread(self, step: str) -> tuple[float, float, float] | None:
        """The median, least and most seconds of a step; None where it was never taken."""
        found = [times[step] for times in self.times if step in times]
        return (median(found), min(found), max(found)) if found else None


class Failed(Exception):
    """A request has failed; the text says in which step, and how."""


class Unreached(Failed):
    """There is no connection."""


class OtherName(Exception):
    """The model calls the limit of its tokens by the other name."""


class Tools(NamedTuple):
    """resolve: finds addresses. trust: whose certificates are good. patience: in seconds."""

    resolve: Resolve
    trust: ssl.SSLContext
    patience: float


async def resolve(host: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Probe:
    """Asks one target and looks at the clock."""

    def __init__(self, target: Target, tools: Tools) -> None:
        self._target = target
        self._tools = tools
        self._limit_name = _LIMIT_NAMES[0]

    async def ask(self, n: int) -> list[Row]:
        """Each time on a new connection, and once more on the same."""
        import anyio.lowlevel  # noqa: PLC0415 - as httpx below, which builds on it

        # Has it import the rest: a sixth of a second that would count as the first connect.
        await anyio.lowlevel.checkpoint()
        new, kept = Row(self._target, "new"), Row(self._target, "kept")
        while new.count < n and (new.times or new.count < _GIVE_UP):
            try:
                await self._ask_twice(new, kept)
            except OtherName:
                self._limit_name = _LIMIT_NAMES[1]
        return [row for row in (new, kept) if row.count]

    async def _ask_twice(self, new: Row, kept: Row) -> None:
        import httpx  # noqa: PLC0415 - it takes a tenth of a second from who never asks

        # Its own timeouts are for each step; ours is for all of them, and comes first.
        async with httpx.AsyncClient(
            verify=self._tools.trust,
            trust_env=False,
            timeout=2 * self._tools.patience,
            follow_redirects=False,
        ) as client:
            line = _Line(self._target, client, self._tools)
            if await self._measured(new, line):
                await self._measured(kept, line)

    async def _measured(self, row: Row, line: _Line) -> bool:
        """Ask, and write down what comes of it; whether it has been answered."""
        try:
            async with asyncio.timeout(self._tools.patience):
                times = await line.ask(self._limit_name)
        except TimeoutError:
            row.errors[f"{line.step}: not done in {self._tools.patience:g} s"] += 1
        except Failed as error:
            row.errors[f"{line.step}: {error}"] += 1
        else:
            if row.connection == "new" or "connect" not in times:  # else the upstream keeps none
                row.times.append(times)
            return True
        return False


class _Line:
    """A client with one connection, or with none yet.

    step: which one is being taken.
    """

    def __init__(self, target: Target, client: httpx.AsyncClient, tools: Tools) -> None:
        self._target = target
        self._client = client
        self._tools = tools
        self._addresses: Sequence[str] = ()
        self.step = "dns"

    async def ask(self, limit_name: str) -> Mapping[str, float]:
        """The seconds of each step that was taken. Raises Failed and OtherName."""
        times = {}
        begun = found = perf_counter()
        if not self._addresses:
            self._addresses = await self._found()
            found = perf_counter()
            times["dns"] = found - begun
        times.update(await self._from_any(limit_name, found))
        times["total"] = perf_counter() - begun
        return times

    async def _found(self) -> Sequence[str]:
        origin = self._target.place.origin
        try:
            found = await self._tools.resolve(origin.host, origin.port)
        except (OSError, UnicodeError) as error:
            raise Failed(_reason(error)) from None
        if not found:
            raise Failed("no address")
        return found[:_MOST_ADDRESSES]

    async def _from_any(self, limit_name: str, begun: float) -> Mapping[str, float]:
        """The first address that can be reached is kept."""
        *others, last = self._addresses
        for address in others:
            try:
                times = await self._from(address, limit_name, begun)
            except Unreached:
                continue
            self._addresses = [address]
            return times
        self._addresses = [last]
        return await self._from(last, limit_name, begun)

    async def _from(self, address: str, limit_name: str, begun: float) -> Mapping[str, float]:
        import httpx  # noqa: PLC0415 - see above

        self.step = "connect"
        marks: dict[str, float] = {}

        async def trace(event: str, details: object) -> None:  # noqa: ARG001 - httpx calls it so
            marks[event] = perf_counter()
            self.step = _STEP_AFTER.get(event, self.step)

        try:
            request = self._request(address, limit_name, trace)
            first = await self._read(await self._client.send(request, stream=True), limit_name)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failed = Unreached if self.step == "connect" else Failed
            raise failed(_reason(error)) from None
        return _times(marks, begun, first)

    def _request(self, address: str, limit_name: str, trace: Trace) -> httpx.Request:
        import httpx  # noqa: PLC0415 - see above

        target, origin = self._target, self._target.place.origin
        body = target.body(limit_name)
        return self._client.build_request(
            "GET" if body is None else "POST",
            httpx.URL(
                scheme=origin.scheme,
                host=address,
                port=origin.port,
                raw_path=target.path.encode("ascii"),
            ),
            headers=target.headers,
            json=body,
            extensions={"trace": trace, "sni_hostname": origin.host},
        )

    async def _read(self, response: httpx.Response, limit_name: str) -> float:
        """When the first byte of the body has come, or it had none. All of it is read."""
        first, size, beginning = None, 0, b""
        try:
            async for piece in response.aiter_raw():
                first = first or perf_counter()
                size += len(piece)
                if response.status_code >= 300 and size <= _MOST_ERROR_BYTES:
                    beginning += piece
                if size > _MOST_BYTES:
                    raise Failed("the answer is too long")
        finally:
            await response.aclose()
        if not 200 <= response.status_code < 300:
            self._refused(response.status_code, beginning, limit_name)
        return first or perf_counter()

    def _refused(self, status: int, body: bytes, limit_name: str) -> None:
        message, parameter = _error_in(body)
        if status == 400 and parameter == limit_name == _LIMIT_NAMES[0]:
            raise OtherName
        if self._target.key is not None:
            message = message.replace(self._target.key, "***")
        raise Failed(f"{status} {message}".rstrip())


_STEP_AFTER = {
    "connection.connect_tcp.complete": "answer",
    "connection.start_tls.started": "tls",
    "connection.start_tls.complete": "answer",
    "http11.send_request_headers.started": "answer",
}


def _times(marks: Mapping[str, float], begun: float, first: float) -> Mapping[str, float]:
    times = {"first_byte": first - marks["http11.send_request_headers.started"]}
    connected = marks.get("connection.connect_tcp.complete")
    if connected is not None:
        times["connect"] = connected - begun
    shaken = marks.get("connection.start_tls.complete")
    if shaken is not None:
        times["tls"] = shaken - marks["connection.start_tls.started"]
    return times


def _error_in(body: bytes) -> tuple[str, object]:
    """The message of an error in the OpenAI shape, and the parameter that it names."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"]), error.get("param")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return body.decode("utf-8", "replace"), None


def _reason(error: BaseException) -> str:
    """What was at the bottom of it, in words."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    if isinstance(error, socket.gaierror):
        return error.strerror or "not known"
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno)  # in its own text is an address, and no reason
    return str(error) or type(error).__name__
