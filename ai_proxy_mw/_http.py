"""Request, Response and Body: what walks the corridor."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from ai_proxy_mw._identity import Identity
    from ai_proxy_mw._incoming import RequestBody
    from ai_proxy_mw._types import RawHeaders, Scope
    from ai_proxy_mw.accounting.note import Note
    from ai_proxy_mw.limiting.tally import Tally
    from ai_proxy_mw.routing.served import Served
    from ai_proxy_mw.schema.call import Call

T = TypeVar("T")


class Headers:
    """A read-only view of header lines; names are compared without case.

    `raw` is the list itself, for those who pass lines on as they are.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: RawHeaders) -> None:
        self.raw = raw

    def get(self, name: str) -> str | None:
        """The first line of that name, or None."""
        key = name.lower().encode("latin-1")
        for candidate, value in self.raw:
            if candidate == key:
                return value.decode("latin-1")
        return None

    def get_all(self, name: str) -> list[str]:
        """Every line of that name, in their order."""
        key = name.lower().encode("latin-1")
        return [value.decode("latin-1") for candidate, value in self.raw if candidate == key]

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for name, value in self.raw:
            yield name.decode("latin-1"), value.decode("latin-1")

    def __repr__(self) -> str:
        # Values hold credentials, so only the names are shown.
        return f"Headers({[name.decode('latin-1') for name, _ in self.raw]!r})"


class Ending(enum.Enum):
    """How a response body ended."""

    COMPLETE = "complete"
    CUT = "cut"  # the upstream broke off or went silent
    STOPPED = "stopped"  # by us: it took longer than any may, or our process stops
    CANCELLED = "cancelled"  # the caller left, whether or not the rest was read without him
    FAILED = "failed"  # a fault of ours


class Observer(Protocol):
    """Watches a response body on its way out. Called in the event loop, so it must be quick."""

    def chunk(self, data: bytes) -> None: ...

    def end(self, how: Ending) -> None: ...


class Body(ABC):
    """Bytes that arrive over time.

    A class and not a generator: closing a generator that never started skips its `finally`.
    `ended` is true as soon as it is known that no further piece follows the last one given,
    which lets a door mark that piece as the last instead of sending an empty one after it.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def ended(self) -> bool: ...

    def __aiter__(self) -> Body:
        return self

    @abstractmethod
    async def __anext__(self) -> bytes: ...

    async def ready(self) -> None:
        """Wait until the first piece is there, or the end; raises what reading it would raise."""
        return

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of whatever delivers the rest. May be called twice, and in mid-body."""


class BytesBody(Body):
    """A body that is all there."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def ended(self) -> bool:
        return not self._content

    async def __anext__(self) -> bytes:
        if not self._content:
            raise StopAsyncIteration
        content, self._content = self._content, b""
        return content

    async def aclose(self) -> None:
        self._content = b""


class Response:
    """What a handler answers: a head, a body, and who watches the body leave.

    `event_stream` says that the body is server-sent events, whose pieces must not wait.
    `aside` holds what was taken out of that stream for us, whole events, until the body has ended.
    """

    __slots__ = ("aside", "body", "event_stream", "headers", "observers", "status")

    def __init__(self, status: int, headers: RawHeaders, body: Body | bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = BytesBody(body) if isinstance(body, bytes) else body
        self.event_stream = False
        self.aside: Sequence[bytes] = ()
        self.observers: list[Observer] = []

    def __repr__(self) -> str:
        return f"Response({self.status})"


class RunSync(Protocol):
    """Runs a blocking function where the host framework's context is valid, off the loop."""

    async def __call__(self, function: Callable[[], T], /) -> T: ...


class Request:
    """A call on its way through the corridor.

    `path` is what follows the prefix, decoded and checked, e.g. `/chat/completions`. `raw_headers`
    are the lines as the server gave them, for those who pass some on by their name, and `said`
    has the last one of each name, for those who look for a few. `scope` is
    the ASGI scope and `environ` the WSGI environment; the door that took the call sets one of
    them. `client` is the address that the call came from, and `app` the app behind the door, if
    there is one. Stages further in find what the stages before them made out: `endpoint`,
    `identity` and its `subject`, `call` where the body was read, and the
    `tally` of what is counted for it where there are limits. Where a call may be sent more than
    once, `served` tells what has become of it; `sends` counts how often it was handed to a
    transport. Where somebody wants to know of calls, a `note` of it is taken.

    Where a route of the app has handed the call over, `from_route` is true, and the route has
    said who is calling (`identified`) or why nobody is let in (`refusal`).
    """

    __slots__ = (
        "app",
        "body",
        "call",
        "client",
        "endpoint",
        "environ",
        "from_route",
        "id",
        "identified",
        "identity",
        "method",
        "note",
        "path",
        "query",
        "raw_headers",
        "refusal",
        "run_sync",
        "said",
        "scope",
        "sends",
        "served",
        "subject",
        "tally",
    )

    # Also by position: by name it takes the interpreter three times as long, for every call.
    def __init__(
        self,
        method: str,
        path: str | None,
        query: bytes,
        headers: RawHeaders,
        body: RequestBody,
        client: str | None,
        request_id: str,
        run_sync: RunSync,
        scope: Scope | None = None,
        environ: dict[str, Any] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.raw_headers = headers
        self.said = dict(headers)
        self.body = body
        self.client = client
        self.id = request_id
        self.run_sync = run_sync
        self.scope = scope
        self.environ = environ
        self.app: Any = None
        self.from_route = False
        self.identified: str | Identity | None = None
        self.refusal: Exception | None = None
        self.endpoint = ""
        self.identity: Identity | None = None
        self.subject = ""
        self.call: Call | None = None
        self.tally: Tally | None = None
        self.sends = 0
        self.served: Served | None = None
        self.note: Note | None = None

    def hand_over(self, identified: str | Identity | None, refusal: Exception | None) -> None:
        """Take what a route of the app has made out."""
        self.from_route = True
        self.identified = identified
        self.refusal = refusal

    @property
    def says_nothing_twice(self) -> bool:
        """Whether each header has one line, which is then the one in `said`."""
        return len(self.said) == len(self.raw_headers)

    @property
    def headers(self) -> Headers:
        """The header lines but those with `_` in their name, which some would take for `-`."""
        return Headers([line for line in self.raw_headers if b"_" not in line[0]])

    @property
    def cookies(self) -> dict[str, str]:
        """The caller's cookies (RFC 6265); of two of one name the first, which is the closer.

        Not read with `http.cookies`, which gives up all of them for one with an odd name.
        """
        found: dict[str, str] = {}
        for line in self.headers.get_all("cookie"):
            for item in line.split(";"):
                name, separator, value = item.partition("=")
                if separator:
                    found.setdefault(
                        name.strip(), value.strip().removeprefix('"').removesuffix('"')
                    )
        return found

    def __repr__(self) -> str:
        return f"Request({self.method} {self.path} id={self.id})"
