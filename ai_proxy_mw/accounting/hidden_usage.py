"""Asks for the use of a stream in the name of a caller who did not, and keeps it from him.

OpenAI's servers then send one more chunk, the last one, without choices and with the usage
("stream_options" in their API reference); the others have `"usage": null`, which is left there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from ai_proxy_mw._http import Body
from ai_proxy_mw._sse import EVENT_END, MAX_EVENT, event_of
from ai_proxy_mw.accounting.json_reader import decoded
from ai_proxy_mw.schema.members import all_members

if TYPE_CHECKING:
    from ai_proxy_mw._http import Response
    from ai_proxy_mw.accounting.readers import UsageReader
    from ai_proxy_mw.schema.call import Call

# Other endpoints report it in any case.
_ENDPOINTS = ("POST /chat/completions", "POST /completions")

_MEMBER = b',"stream_options":{"include_usage":true}'
_NAME = b'"usage"'
_NONE = b'"usage":null'
_USAGE = re.compile(rb'"usage"[ \t\r\n]*:[ \t\r\n]*\{')
_OF_THE_BYTES = (b"content-length", b"etag")


class _Chunk(msgspec.Struct):
    choices: Any = None
    usage: Any = None
    error: Any = None


_chunk = msgspec.json.Decoder(_Chunk)
_options = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_TRUE = msgspec.Raw(b"true")
_NULL = msgspec.Raw(b"null")
_NOT_ASKED = (_NULL, msgspec.Raw(b"false"))


def asking(call: Call, body: bytes | None = None) -> bytes | None:
    """The body that asks for the use of its stream; None where that is asked already, or cannot be.

    body: what would be sent, where that is not the call's own. All of it stays as it is but for
        the member that is added; where there are such options already, they are joined with ours.
    """
    if not call.stream or call.endpoint not in _ENDPOINTS:
        return None
    body = call.body() if body is None else body
    raw = call.members.get("stream_options")
    if raw is None:
        # At the end, for most decoders take the last of two members, however these are spelled.
        end = body.rindex(b"}")
        return b"%b%b%b" % (body[:end], _MEMBER, body[end:])
    try:
        options = _options.decode(raw) or {}
    except msgspec.ValidationError:
        return None  # it is for the upstream to say what is wrong with it
    if options.get("include_usage", _NULL) not in _NOT_ASKED:
        return None
    joined = msgspec.json.encode({**options, "include_usage": _TRUE})
    return msgspec.json.encode({**all_members(body), "stream_options": msgspec.Raw(joined)})


def hide(response: Response) -> None:
    """Take the usage out of an event stream that was asked for it, and put it aside."""
    body = HiddenUsage(response.body)
    response.body = body
    response.aside = body.events
    response.headers = [line for line in response.headers if line[0] not in _OF_THE_BYTES]


def tell(reader: UsageReader, aside: Iterable[bytes]) -> None:
    """Let a reader know, at the end of a stream, what was put aside of it."""
    for event in aside:
        reader.chunk(b"\n\n" + event)  # what stands before it may have been cut off


class HiddenUsage(Body):
    """A stream without the events that have no choices and a usage, whose last one is in `events`.

    What else comes is passed on as it comes, the beginning of an event when its end is there: no
    client can use half of one. An event of more than MAX_EVENT bytes is no such thing, and is not
    waited for. When the stream is cut, half an event is dropped.
    """

    __slots__ = ("_body", "_held", "_is_clean", "_is_large", "_is_over", "_line_feed", "events")

    def __init__(self, body: Body) -> None:
        self.events: list[bytes] = []
        self._body = body
        self._held = bytearray()
        self._is_clean = True  # whether the next piece begins with an event
        self._is_large = False  # whether it is the end of a large event that is held
        self._is_over = False
        self._line_feed: bool | None = None  # whether one that comes now is passed on with its CR

    @property
    def ended(self) -> bool:
        return not self._held and (self._is_over or self._body.ended)

    async def __anext__(self) -> bytes:
        while not self._is_over:
            try:
                piece = await self._body.__anext__()
            except StopAsyncIteration:
                self._is_over = True
                rest = self._rest()
                if rest:
                    return rest
                raise
            if self._is_clean and (piece[-2:] == b"\n\n" or piece[-4:] == b"\r\n\r\n"):
                at = piece.find(_NAME)
                if (
                    at < 0
                    or (piece.startswith(_NONE, at) and piece.find(_NAME, at + 7) < 0)
                    or _USAGE.search(piece, at) is None
                ):
                    return piece
            shown = self._shown(piece)
            if shown:
                return shown
        raise StopAsyncIteration

    async def ready(self) -> None:
        await self._body.ready()

    async def aclose(self) -> None:
        self._held.clear()
        await self._body.aclose()

    def _shown(self, piece: bytes) -> bytes:
        """What can be passed on now; the piece itself where that is all of it."""
        held = self._held
        before = len(held)
        held += piece
        shown = self._whole_events(max(0, before - 3))
        if self._is_large or len(held) > MAX_EVENT:
            self._is_large = True
            shown.append(bytes(held[:-3]))  # its end may have begun
            del held[:-3]
        self._is_clean = not held and self._line_feed is None
        found = b"".join(shown)
        return piece if not before and len(found) == len(piece) else found

    def _whole_events(self, seen: int) -> list[bytes]:
        """Take those that are there; what is returned is for the caller."""
        held = self._held
        shown = []
        start = 0
        if self._line_feed is not None and held:
            if held.startswith(b"\n"):
                start = seen = 1
                shown += [b"\n"] * self._line_feed
            self._line_feed = None
        while end := EVENT_END.search(held, seen):
            seen = end.end()
            event = bytes(held[start:seen])
            start = seen
            is_shown = self._is_large or not self._is_put_aside(event)
            self._is_large = False
            if is_shown:
                shown.append(event)
            if seen == len(held) and event.endswith(b"\r"):
                self._line_feed = is_shown
        del held[:start]
        return shown

    def _rest(self) -> bytes:
        """What stands behind the last blank line; some readers take that for an event, too."""
        rest = bytes(self._held)
        self._held.clear()
        return b"" if self._is_put_aside(rest) else rest

    def _is_put_aside(self, event: bytes) -> bool:
        if len(event) > MAX_EVENT or _USAGE.search(event) is None or not _is_usage(event):
            return False
        self.events[:] = [event + b"\n\n"]  # one that has ended already is none the worse for it
        return True


def _is_usage(event: bytes) -> bool:
    found = event_of(event)
    chunk = None if found is None else decoded(_chunk, found.data)
    return (
        chunk is not None
        and chunk.choices == []
        and isinstance(chunk.usage, dict)
        and chunk.error is None
    )
