"""Reads the usage that an event stream reports, and guesses at it where it reports none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from ai_proxy_mw._sse import EventParser
from ai_proxy_mw.accounting.json_reader import decoded
from ai_proxy_mw.accounting.reported import from_anthropic
from ai_proxy_mw.accounting.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

# Where a caller asked for it, each chunk has `"usage":null`. In a text the quotes are escaped.
_HAS_USAGE = re.compile(rb'"usage"[ \t]*:[ \t]*\{')
_REST_OF_STRING = re.compile(rb'(?:[^"\\]|\\.)*', re.DOTALL)


class _Holder(msgspec.Struct):
    usage: Any = None


class _ResponseEvent(msgspec.Struct):
    response: _Holder


class _MessageEvent(msgspec.Struct):
    type: str
    message: _Holder | None = None
    usage: Any = None


_top = msgspec.json.Decoder(_Holder)
_response = msgspec.json.Decoder(_ResponseEvent)
_message = msgspec.json.Decoder(_MessageEvent)


def at_top(data: bytes) -> Any:
    """The usage of an event that has it at its top."""
    event = decoded(_top, data)
    return None if event is None else event.usage


def in_response(data: bytes) -> Any:
    """The usage of an event that tells of a whole response: completed, incomplete or failed."""
    event = decoded(_response, data)
    return None if event is None else event.response.usage


class Text:
    """Finds the model's words in an event without decoding it.

    `names` are the members that hold them as strings; the first is the usual one. What is
    measured is the length of the JSON text, so an escape counts as its characters.
    """

    __slots__ = ("_any", "_first")

    def __init__(self, *names: str) -> None:
        self._first = f'"{names[0]}":"'.encode()
        one_of = "|".join(names).encode()
        self._any = re.compile(rb'"(?:%b)"[ \t]*:[ \t]*"((?:[^"\\]|\\.)*)"' % one_of, re.DOTALL)

    def length(self, data: bytes) -> int:
        """How many bytes of text an event holds."""
        start = data.find(self._first)
        if start >= 0:
            start += len(self._first)
            end = data.find(b'"', start)
            if end > start:
                if data[end - 1] != 0x5C:  # a backslash: the quote belongs to the text
                    return end - start
                rest = _REST_OF_STRING.match(data, start)
                assert rest is not None  # it may be empty
                return rest.end() - start
        return sum([len(text) for text in self._any.findall(data)])


class StreamReader:
    """Usage of a stream of chat, completions, responses or sound.

    Where none is reported, the output is estimated as one token for each event that has text, or
    a token for four bytes of it where that is more: most providers send a token or a few with
    each event.

    find: takes the usage object out of an event.
    normal: makes it Usage.
    text: how the model's words are found; None if they are no words.
    """

    __slots__ = ("_events", "_find", "_length", "_normal", "_parser", "_text", "_usage")

    def __init__(
        self,
        find: Callable[[bytes], Any],
        normal: Callable[[Any], Usage | None],
        text: Text | None,
    ) -> None:
        self._find = find
        self._normal = normal
        self._text = text
        self._parser = EventParser()
        self._usage: Usage | None = None
        self._events = 0
        self._length = 0

    @property
    def has_said(self) -> bool:
        """Whether an event had text; of what is no text each event may be it."""
        return self._text is None or self._events > 0

    def chunk(self, data: bytes) -> None:
        alone = self._parser.alone(data)
        if alone is not None:
            self._take(alone)
            return
        for event in self._parser.feed(data):
            self._take(event.data)

    def _take(self, event: bytes) -> None:
        if b'"usage"' in event and _HAS_USAGE.search(event):
            self._report(event)
        if self._text is not None:
            length = self._text.length(event)
            if length:
                self._events += 1
                self._length += length

    def usage(self) -> Usage | None:
        """What was reported last; or an estimate; or None where nothing has passed."""
        if self._usage is not None:
            return self._usage
        output = self._guess()
        return Usage(0, output, measured=False) if output else None

    def _report(self, data: bytes) -> None:
        usage = self._normal(self._find(data))
        if usage is not None:
            self._usage = usage

    def _guess(self) -> int:
        return max(self._events, -(-self._length // 4))


class MessageStreamReader(StreamReader):
    """Usage of a stream of messages.

    It is told at the start, and again with what has become of it (the counts are cumulative) in
    each `message_delta`; numbers that such an event leaves out are as they were.
    """

    __slots__ = ("_finished", "_raw")

    def __init__(self, text: Text) -> None:
        super().__init__(at_top, from_anthropic, text)
        self._raw: dict[str, Any] = {}
        self._finished = False

    def usage(self) -> Usage | None:
        """What was reported; without the end of the stream, the input and a guess at the output."""
        usage = self._usage
        if usage is None or self._finished:
            return super().usage()
        output = max(usage.output_tokens, self._guess())
        return msgspec.structs.replace(usage, output_tokens=output, measured=False)

    def _report(self, data: bytes) -> None:
        event = decoded(_message, data)
        if event is None:
            return
        final = event.type == "message_delta"
        raw = event.usage if final else event.message and event.message.usage
        if not isinstance(raw, dict):
            return
        merged = {**self._raw, **{name: value for name, value in raw.items() if value is not None}}
        usage = from_anthropic(merged)
        if usage is not None:
            self._raw = merged
            self._usage = usage
            self._finished = self._finished or final
