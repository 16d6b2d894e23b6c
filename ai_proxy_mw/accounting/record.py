"""What is known of a call when it is over."""

from __future__ import annotations

from typing import Literal

import msgspec

Outcome = Literal["complete", "refused", "failed", "cut", "stopped", "cancelled"]

CacheStatus = Literal["hit", "stale", "collapsed", "miss", "bypass"]


class Bodies(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was said, where the owner wants it: the beginnings, and whether that is all."""

    request: bytes
    response: bytes
    request_is_whole: bool
    response_is_whole: bool

    def __repr__(self) -> str:
        # They are not redacted yet, and hooks print records.
        return f"Bodies({len(self.request)} and {len(self.response)} bytes)"


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One for each call, however it has ended.

    time: when it came, in seconds since 1970 (UTC).
    request_id, subject, endpoint: the last two are empty where they were not made out.
    model: as it was asked for. model_used: as the upstream calls the one that has answered.
    upstream: whose answer it is, or who was asked last; None where nobody was.
    attempts: how often it was sent upstream. What a call has cost to which others still listen
        when its caller has left is in its own record, which then comes when that is over.
    status: of the answer; 0 where the caller had left before there was one.
    error: its code, such as "rate_limit_exceeded"; None where all is well.
    outcome: "complete": an answer below 400 has left whole. "refused": by us, before an upstream
        was asked. "failed": an error of the upstream's or of ours. "cut": the upstream broke off in
        the middle. "stopped": we did, for it took too long or the process stops. "cancelled": the
        caller has left.
    stream: whether an event stream was asked for.
    cache: how the cache has served it; None where there is none, or for a call of no kept endpoint.
    background: nobody waits for it: a renewal of a kept answer, or a warm-up.
    input_tokens, output_tokens, images, seconds: used upstream, as in `Usage`, by all attempts.
        cached_input_tokens, cache_write_tokens, reasoning_tokens, audio_tokens and image_tokens
        (both ways) are parts of them.
    measured: whether the provider has said so; False: it is our estimate; None: nothing was used.
    cost: micro-dollars; None where a price is not known.
    saved: micro-dollars that a kept answer has saved; None as above. saved_tokens: both ways.
    bytes_in, bytes_out: of the bodies.
    first_byte: seconds until the answer's first byte was sent. first_content: until its first
        words. total: until it was over. max_gap: the longest pause between two pieces of its body.
        None where there was none.
    overhead: seconds of those until the first byte, or the end, that were neither the upstream's
        nor the caller's.
    """

    time: float
    request_id: str
    subject: str = ""
    endpoint: str = ""
    model: str | None = None
    model_used: str | None = None
    upstream: str | None = None
    attempts: int = 0
    status: int = 0
    error: str | None = None
    outcome: Outcome = "complete"
    stream: bool = False
    cache: CacheStatus | None = None
    background: bool = False
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    images: int = 0
    seconds: float = 0.0
    measured: bool | None = None
    cost: int | None = 0
    saved: int | None = 0
    saved_tokens: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    first_byte: float | None = None
    first_content: float | None = None
    total: float = 0.0
    max_gap: float | None = None
    overhead: float = 0.0
    bodies: Bodies | None = None
