"""Whether an answer is whole, and no error in disguise."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ai_proxy_mw._sse import Event, EventParser

_CHAT = frozenset({"POST /chat/completions", "POST /completions"})
_LAST = {
    "POST /audio/speech": ("speech.audio.done",),
    "POST /images/generations": ("image_generation.completed",),
    "POST /messages": ("message_stop",),
    "POST /responses": ("response.completed", "response.incomplete"),
}
"""The types of the events that end a stream as it should."""

_BINARY = {
    "POST /audio/speech": ("audio/", "application/octet-stream"),
    "POST /images/generations": ("image/",),
}
_USUAL = re.compile(rb"(?:event: ([^\n]*+)\n)?+data: ([^\n]*+)")
"""The lines of an event, as nearly all are written."""

_DONE = b"[DONE]"
_FAILURES = ("error", "response.failed")

_HOLDS = {
    "POST /chat/completions": "choices",
    "POST /completions": "choices",
    "POST /embeddings": "data",
    "POST /images/generations": "data",
    "POST /messages": "content",
    "POST /moderations": "results",
    "POST /responses": "output",
}
"""The member of an answer that is what was asked for."""


class _Choice(msgspec.Struct):
    """Routers tell here of a model that has failed, with a status of 200."""

    error: Any = None
    finish_reason: Any = None


class _Head(msgspec.Struct):
    """What tells of a JSON object whether something has gone wrong."""

    type: Any = None
    error: Any = None
    status: Any = None


class _Chat(_Head):
    choices: list[_Choice] | None = None


def _holding(name: str) -> msgspec.json.Decoder[Any]:
    """Of an answer that is what stands in a member of that name."""
    if name == "choices":
        return msgspec.json.Decoder(_Chat)
    held = [("held", msgspec.Raw, msgspec.Raw())]
    return msgspec.json.Decoder(
        msgspec.defstruct("_Holder", held, bases=(_Head,), rename={"held": name})
    )


_head = msgspec.json.Decoder(_Head)
_answers = {endpoint: _holding(name) for endpoint, name in _HOLDS.items()}
_NOTHING = (msgspec.Raw(), msgspec.Raw(b"null"))
_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def is_whole(endpoint: str, content_type: str, body: bytes) -> bool:
    """Whether an answer with a 2xx status, its coding taken off, is one to keep. Never raises."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        return _is_whole_json(endpoint, body)
    if kind == "text/event-stream":
        return _is_text(body) and _is_whole_stream(endpoint, body)
    return bool(body) and kind.startswith(_BINARY.get(endpoint, ()))


def _is_whole_json(endpoint: str, body: bytes) -> bool:
    answer = _read(body, _answers.get(endpoint, _head))
    if answer is None or answer.error is not None or not _is_text(body):
        return False
    if isinstance(answer, _Chat):
        choices = answer.choices or []
        return bool(choices) and not any(map(_has_failed, choices))
    if getattr(answer, "held", None) in _NOTHING:
        return False
    return endpoint != "POST /responses" or answer.status in ("completed", "incomplete", None)


def _has_failed(choice: _Choice) -> bool:
    return choice.error is not None or choice.finish_reason == "error"


def _read(text: bytes, decoder: msgspec.json.Decoder[Any] = _head) -> Any:
    try:
        return decoder.decode(text)
    except _BAD:
        return None


def _is_text(body: bytes) -> bool:
    # The decoder does not look into members that it skips.
    try:
        return body.isascii() or bool(body.decode())
    except UnicodeDecodeError:
        return False


def _is_whole_stream(endpoint: str, body: bytes) -> bool:
    events = _events(body)
    if not events or not _ends_with_data(body):
        return False
    done = events[-1].data == _DONE
    if done:
        events.pop()
    types = [_type(event) for event in events]
    if not types or None in types:
        return False
    # Some end each stream with [DONE], also those that have a last event of their own.
    return done if endpoint in _CHAT else types[-1] in _LAST.get(endpoint, ())


def _events(body: bytes) -> list[Event]:
    """Its events, none for a body that ends in the middle of one."""
    parser = EventParser(max_event=len(body))
    # Cut where the parser may cut, too, which saves its search.
    *texts, rest = [body] if b"\r" in body else body.split(b"\n\n")
    events = []
    for text in texts:
        usual = _USUAL.fullmatch(text)
        if usual is None:
            events += parser.feed(text + b"\n\n")
        else:
            events.append(Event((usual[1] or b"").decode(), usual[2]))
    events += parser.feed(rest)
    return [] if parser.feed(b"\n\n") else events


def _ends_with_data(body: bytes) -> bool:
    """Whether only blank lines and comments follow the last data."""
    lines = (line for line in reversed(body.splitlines()) if line and not line.startswith(b":"))
    return next(lines, b"").partition(b":")[0] == b"data"


def _type(event: Event) -> str | None:
    """What an event tells; None where it tells of a failure or cannot be read."""
    head = _read(event.data)
    if head is None or head.error is not None or event.event in _FAILURES:
        return None
    if head.type in _FAILURES:
        return None
    return head.type if isinstance(head.type, str) else event.event
