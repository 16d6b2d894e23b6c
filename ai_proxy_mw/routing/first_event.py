"""What an event at the beginning of a stream says: nothing yet, something, or that it failed."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ai_proxy_mw.routing.error_status import UNKNOWN, status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_proxy_mw._sse import Event

LARGEST = 1024 * 1024
"""Bytes of an event that are looked into; a larger one has something to say."""


class Kind(enum.Enum):
    PRELUDE = "prelude"  # says nothing yet: another upstream can still be asked
    CONTENT = "content"  # what the caller waits for, the end mark, or what we do not know
    ERROR = "error"


class Verdict(NamedTuple):
    """`status` is that HTTP status which an error stands for, else 0."""

    kind: Kind
    status: int = 0


PRELUDE = Verdict(Kind.PRELUDE)
CONTENT = Verdict(Kind.CONTENT)

_FAILURES = frozenset({"error", "response.error", "response.failed"})
_HEARTBEATS = frozenset({"keepalive", "ping", "response.keep_alive"})

# In a text of the model the quotes are escaped, so these are members or values of the provider's;
# whose, is seen when it is decoded.
_MAY_FAIL = (b'"error"', b'"response.error"', b'"response.failed"')
_MAY_BEAT = re.compile(rb'"(?:keepalive|ping|response\.keep_alive)"')
_WORDS = re.compile(rb'"(?:content|reasoning_content|text)"[ \t]*:[ \t]*"[^"]')
_FIRST_STEPS = re.compile(
    rb'"(?:message_start|content_block_start|response\.(?:created|queued|in_progress'
    rb'|output_item\.added|(?:content|reasoning_summary)_part\.added))"'
)


class _Head(msgspec.Struct):
    """What an event of any provider may tell of itself."""

    type: Any = None
    error: Any = None
    object: Any = None
    code: Any = None
    status: Any = None
    status_code: Any = None
    error_type: Any = None
    response: Any = None
    choices: Any = None
    usage: Any = None
    message: Any = None
    content_block: Any = None
    item: Any = None
    part: Any = None


_head = msgspec.json.Decoder(_Head)


def verdict(event: Event, endpoint: str) -> Verdict:
    """What an event says to those who wait for the first content of an endpoint. Never raises."""
    name, data = event
    if len(data) > LARGEST:
        return CONTENT
    if name in _FAILURES:
        head = _read(data)
        return Verdict(Kind.ERROR, UNKNOWN if head is None else _status(head))
    if not data.strip():
        return CONTENT if name and name not in _HEARTBEATS else PRELUDE
    may_fail = any(word in data for word in _MAY_FAIL)
    if name in _HEARTBEATS and not may_fail:
        return PRELUDE
    if not may_fail and _is_content(data, endpoint):
        return CONTENT
    head = _read(data)
    return CONTENT if head is None else _judge(name, head, endpoint)


def _is_content(data: bytes, endpoint: str) -> bool:
    """Whether it is content for sure, which saves decoding it."""
    if endpoint in _CHAT:
        return _WORDS.search(data) is not None
    return not (_MAY_BEAT.search(data) or _FIRST_STEPS.search(data))


def _read(data: bytes) -> _Head | None:
    try:
        return _head.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _judge(name: str, head: _Head, endpoint: str) -> Verdict:
    kind = head.type if isinstance(head.type, str) else name
    if head.error or kind in _FAILURES or head.object == "error":
        return Verdict(Kind.ERROR, _status(head))
    if endpoint in _CHAT and isinstance(head.choices, list):
        return _chunk(head)
    says_nothing = kind in _HEARTBEATS or _is_prelude(kind, head, endpoint)
    return PRELUDE if says_nothing else CONTENT


def _status(head: _Head) -> int:
    within = head.response.get("error") if isinstance(head.response, dict) else None
    return status_of(head.error, within, msgspec.structs.asdict(head))


# -- chat and completions ----------------------------------------------------------------------

_CHAT = frozenset({"POST /chat/completions", "POST /completions"})


def _chunk(head: _Head) -> Verdict:
    # Without choices it tells how the prompt was filtered, or else the usage, at the very end.
    if not head.choices:
        return CONTENT if head.usage else PRELUDE
    for choice in head.choices:
        if not isinstance(choice, dict):
            return CONTENT
        if choice.get("error") or choice.get("finish_reason") == "error":
            return Verdict(Kind.ERROR, status_of(choice.get("error")))
    return PRELUDE if all(map(_says_nothing, head.choices)) else CONTENT


def _says_nothing(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta") or {}
    if choice.get("finish_reason") or choice.get("text") or choice.get("message"):
        return False
    return isinstance(delta, dict) and not any(
        value for name, value in delta.items() if name != "role"
    )


# -- messages and responses --------------------------------------------------------------------


def _is_prelude(kind: str, head: _Head, endpoint: str) -> bool:
    says_nothing = _PRELUDES.get(endpoint, {}).get(kind)
    return says_nothing is not None and says_nothing(head)


def _is_empty(thing: Any) -> bool:
    """A text, or thoughts, that have not begun. A tool has a name, and that is something."""
    kind = thing.get("type") if isinstance(thing, dict) else None
    if not isinstance(kind, str) or kind not in _EMPTY:
        return False
    return not any(thing.get(name) for name in _EMPTY[kind])


_EMPTY = {
    "message": ("content",),
    "output_text": ("text",),
    "reasoning": ("content", "summary"),
    "reasoning_text": ("text",),
    "refusal": ("refusal",),
    "summary_text": ("text",),
    "text": ("text",),
    "thinking": ("thinking",),
}
"""By its type: the members of a thing that are empty at its beginning."""


def _always(head: _Head) -> bool:  # noqa: ARG001 - one of several
    return True


_PRELUDES: dict[str, dict[str, Callable[[_Head], bool]]] = {
    "POST /messages": {
        "message_start": lambda head: _is_empty(head.message),
        "content_block_start": lambda head: _is_empty(head.content_block),
    },
    "POST /responses": {
        "response.created": _always,
        "response.queued": _always,
        "response.in_progress": _always,
        "response.output_item.added": lambda head: _is_empty(head.item),
        "response.content_part.added": lambda head: _is_empty(head.part),
        "response.reasoning_summary_part.added": lambda head: _is_empty(head.part),
    },
}
