"""One call: the request as it comes in, the answer as it goes out. Knows no carrier."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ai_proxy_mw._http import Headers
from ai_proxy_mw._types import RawHeaders
from ai_proxy_mw.testing._answer import Answer
from ai_proxy_mw.testing._call import Call, Refusal, Traits
from ai_proxy_mw.testing._compress import compress
from ai_proxy_mw.testing._faults import ACCEPT, BEFORE_HEAD, Faults
from ai_proxy_mw.testing._gate import Gates
from ai_proxy_mw.testing._record import Outcome, Record, SeenRequest
from ai_proxy_mw.testing._routes import refuse, respond

BASE_PATH = "/v1"

_LARGEST_JSON = 64 << 20
_PREFIX = 1 << 20


Open = Callable[[str, bytes, RawHeaders, int], "Exchange"]
"""Opens an exchange: method, target, headers, number of the connection."""


class BrokenOff(Exception):
    """A fault says that the connection ends here."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the exchanges of one fake share."""

    traits: Traits
    record: Record
    faults: Faults = field(default_factory=Faults)
    gates: Gates = field(default_factory=Gates)


class Exchange:
    """Made at the head of a request; `feed` its body, `finish` it, then play the answer.

    `disconnects` and `stalls` say that a fault is due before the body is read.
    """

    def __init__(
        self, desk: Desk, method: str, target: bytes, headers: RawHeaders, connection: int = 0
    ) -> None:
        path, _, query = target.decode("latin-1").partition("?")
        self._desk = desk
        self.method = method
        self.seen = SeenRequest(
            method=method, path=path, query=query, headers=headers, connection=connection
        )
        self._headers = Headers(headers)
        self._path = path.removeprefix(BASE_PATH) if path.startswith(BASE_PATH + "/") else path
        self._fault = desk.faults.take(self._path)
        self._kept = bytearray()
        self._keep = _PREFIX if self._is_upload() else _LARGEST_JSON
        self._hash = hashlib.sha256()
        self._pieces: Iterator[bytes] = iter(())
        self._ahead: bytes | None = None
        self.answer: Answer
        desk.record.begin(self.seen)

    def _is_upload(self) -> bool:
        return "json" not in (self._headers.get("content-type") or "json")

    def _due(self, place: int) -> str | None:
        fault = self._fault
        return fault.kind if fault is not None and fault.place == place else None

    @property
    def disconnects(self) -> bool:
        return self._due(ACCEPT) == "disconnect"

    @property
    def stalls(self) -> bool:
        return self._due(ACCEPT) == "stall"

    def feed(self, data: bytes) -> None:
        """A piece of the request's body."""
        self._hash.update(data)
        self.seen.body_size += len(data)
        room = self._keep - len(self._kept)
        if room > 0:
            self._kept += data[:room]

    def finish(self) -> None:
        """The request is all there: make the answer."""
        seen = self.seen
        seen.sha256 = self._hash.hexdigest()
        body = bytes(self._kept)
        self._kept.clear()
        seen.body = body[: self._desk.traits.keep_body]
        self._desk.record.arrived(seen)
        call = Call(
            method=self.method,
            path=self._path,
            query=seen.query,
            headers=self._headers,
            body=body,
            size=seen.body_size,
            sha256=seen.sha256,
            traits=self._desk.traits,
        )
        self.answer = self._make(call)
        self._ahead = next(self._pieces, None)
        seen.status = self.answer.status

    def _make(self, call: Call) -> Answer:
        answer = respond(call) if self._due(BEFORE_HEAD) != "fail" else self._failure(call)
        if self._may_compress():
            compress(answer)
        answer.frame()
        if self.method == "HEAD":
            answer.body = b""
        elif self._fault is not None and self._fault.place >= 0:
            self._pieces = _in_halves(answer)
        else:
            body = answer.body
            self._pieces = iter((body,)) if isinstance(body, bytes) else body
        return answer

    def _failure(self, call: Call) -> Answer:
        fault = self._fault
        assert fault is not None
        refusal = Refusal(
            fault.message,
            status=fault.status,
            type=fault.type,
            code=fault.code,
            param=fault.param,
        )
        answer = refuse(call.path, refusal)
        if fault.body is not None:
            answer.body = fault.body
        answer.sign(call.key)
        given = {name.lower().encode(): value.encode() for name, value in fault.headers.items()}
        answer.headers = [line for line in answer.headers if line[0] not in given]
        answer.headers += given.items()
        return answer

    def _may_compress(self) -> bool:
        wanted = self._desk.traits.compress
        if wanted == "gzip":
            return "gzip" in (self._headers.get("accept-encoding") or "")
        return wanted == "always"

    @property
    def at_once(self) -> bytes | None:
        """The answer's body, if head and body can go out together and now."""
        body = self.answer.body
        free = self._fault is None or self._fault.kind == "fail"
        return (
            body if free and self._desk.gates.headers is None and isinstance(body, bytes) else None
        )

    def sent_at_once(self) -> None:
        """The carrier has taken all of the answer."""
        self.seen.chunks_sent = 1
        self.end("complete")

    async def head(self) -> None:
        """Wait until the head may go out. Raises BrokenOff."""
        await self._obey(BEFORE_HEAD)
        gate = self._desk.gates.headers
        if gate is not None:
            await gate.walk_through()

    async def piece(self) -> bytes | None:
        """Wait for the next piece of the answer's body; None is its end. Raises BrokenOff."""
        await self._obey(self.seen.chunks_sent)
        data = self._ahead
        if data is None:
            return None
        if not isinstance(self.answer.body, bytes):
            await self._wait_turn()
        self._ahead = next(self._pieces, None)
        self.seen.chunks_sent += 1
        if self.exhausted:
            # Said before the piece leaves: a client that has it all finds the call complete.
            self.end("complete")
        return data

    @property
    def exhausted(self) -> bool:
        """Whether the last piece was given, and nothing is to go wrong after it."""
        return self._ahead is None and self._due(self.seen.chunks_sent) is None

    async def _wait_turn(self) -> None:
        gate = self._desk.gates.chunks
        if gate is not None:
            await gate.walk_through()
        elif self.seen.chunks_sent and self.answer.paced:
            await asyncio.sleep(self._desk.traits.pace)
        else:
            await asyncio.sleep(0)  # others want to run, and the client may have left

    async def _obey(self, place: int) -> None:
        kind = self._due(place)
        if kind == "disconnect":
            raise BrokenOff
        if kind == "stall":
            await asyncio.get_running_loop().create_future()

    def end(self, outcome: Outcome) -> None:
        """How it ended; what is said first holds."""
        self._desk.record.end(self.seen, outcome)


def _in_halves(answer: Answer) -> Iterator[bytes]:
    body = answer.body
    if not isinstance(body, bytes):
        return body
    middle = len(body) // 2
    return iter((body[:middle], body[middle:]))
