"""The bytes that every row sends and gets: 1.5 KB of question, 1 KB of answer."""

from __future__ import annotations

import json

HOST = "127.0.0.1"
CALLER_KEY = "sk-bench-74764fbc64ca7dc2ede6f90b4b528484a2316eed0f6ff893"
"""What callers send. It opens nothing but LiteLLM's row, which does not start without a key."""

MARK = b"relayed by the benchmark"
"""Part of every right answer, for rows that write the answer anew."""

_PROSE = "The quick brown fox jumps over the lazy dog, and the dog asks a language model why. "


def _prose(size: int) -> str:
    return (_PROSE * (size // len(_PROSE) + 1))[:size]


def _padded(document: dict[str, object], filler: list[dict[str, object]], size: int) -> bytes:
    """The document as compact JSON of exactly `size` bytes; `filler[0]["content"]` takes it up."""
    missing = size - len(_compact(document))
    filler[0]["content"] = f"{filler[0]['content']}{_prose(missing)}"
    return _compact(document)


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def question(size: int = 1536, **extra: object) -> bytes:
    """A chat completion request of `size` bytes."""
    messages: list[dict[str, object]] = [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "Because it is there."},
        {"role": "user", "content": "And the fox?"},
    ]
    document: dict[str, object] = {"model": "bench", "messages": messages, **extra}
    return _padded(document, messages, size)


def _answer(size: int = 1024) -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": f"{MARK.decode()}: "}
    document: dict[str, object] = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "bench",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 340, "completion_tokens": 170, "total_tokens": 510},
    }
    return _padded(document, [message], size)


def _event() -> bytes:
    delta = {"content": " fox"}
    document = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "bench",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }
    return b"data: " + _compact(document) + b"\n\n"


QUESTION = question()
ANSWER = _answer()
EVENT = _event()
DONE = b"data: [DONE]\n\n"


def streamed(chunks: int) -> bytes:
    """The whole body of a stream of that many events."""
    return EVENT * chunks + DONE


def stream_question(*, chunks: int, pace: float) -> bytes:
    """Asks the mock upstream for `chunks` events, `pace` seconds apart."""
    return question(stream=True, bench={"chunks": chunks, "pace": pace})


_SDK_HEADERS = b"".join(
    b"x-stainless-%s: %s\r\n" % line
    for line in (
        (b"lang", b"python"),
        (b"package-version", b"2.8.0"),
        (b"os", b"Linux"),
        (b"arch", b"x64"),
        (b"runtime", b"CPython"),
        (b"runtime-version", b"3.11.9"),
        (b"async", b"async:asyncio"),
        (b"retry-count", b"0"),
        (b"read-timeout", b"600"),
    )
)


def request(method: str, path: str, body: bytes = b"", *, sdk: bool = False) -> bytes:
    """A whole HTTP/1.1 request; `sdk` adds the headers that the official SDK sends."""
    return head(method, path, len(body), sdk=sdk) + body


FORM_TYPE = "multipart/form-data; boundary=bench"
FORM_START = (
    b'--bench\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--bench\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
)
FORM_END = b"\r\n--bench--\r\n"
"""Between the two stands the file of an upload."""


def head(
    method: str,
    path: str,
    length: int,
    *,
    content_type: str = "application/json",
    sdk: bool = False,
) -> bytes:
    """The head of a request with a body of `length` bytes."""
    lines = (
        f"{method} {path} HTTP/1.1\r\n"
        f"host: {HOST}\r\n"
        "accept: application/json\r\n"
        "user-agent: benchmark/1\r\n"
        f"authorization: Bearer {CALLER_KEY}\r\n"
        f"content-type: {content_type}\r\n"
        f"content-length: {length}\r\n"
    )
    return lines.encode("ascii") + (_SDK_HEADERS if sdk else b"") + b"\r\n"
