"""An answer under way, as other processes see it: parts in the store that they share."""

from __future__ import annotations

import re
import zlib

import msgspec

from ai_proxy_mw._errors import UpstreamError

_VERSION = b"aiP1"
_CHECKSUM = 4
_NAME = re.compile(rb"[a-z0-9-]+")
_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_DAY = 86_400

Head = tuple[int, list[tuple[bytes, bytes]], bool]


class Part(msgspec.Struct, array_like=True):
    """Some pieces of an answer.

    first: how many pieces there are before them.
    head: status, header lines and whether it is an event stream; in the part with the first piece.
    whole: whether the answer is at its end with them.
    failed: how it broke off, as status, code, message and seconds to wait.
    aside: what was taken out of the answer's stream, where it is at its end.
    """

    first: int
    pieces: list[bytes]
    head: Head | None = None
    whole: bool = False
    failed: tuple[int, str, str, int | None] | None = None
    aside: list[bytes] = []


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Part)


def encode(key: str, part: Part) -> bytes:
    """As it is stored under that key."""
    packed = _encoder.encode(part)
    return b"%b%b%b" % (_VERSION, _sum(key, packed), packed)


def decode(key: str, data: bytes | None) -> Part | None:
    """What was stored under that key; None if it is nothing, damaged, or another key's."""
    start = len(_VERSION)
    if data is None or not data.startswith(_VERSION):
        return None
    packed = data[start + _CHECKSUM :]
    if data[start : start + _CHECKSUM] != _sum(key, packed):
        return None
    try:
        part = _decoder.decode(packed)
    except (ValueError, RecursionError):
        return None
    return part if part.head is None or _is_fit(part.head) else None


def told(error: UpstreamError) -> tuple[int, str, str, int | None]:
    """An error for callers in other processes."""
    return error.status, error.code, error.message, error.retry_after


def retold(failed: tuple[int, str, str, int | None]) -> UpstreamError:
    """The error that was told."""
    status, code, message, retry_after = failed
    error = UpstreamError(message, code=code)
    error.status = status if 500 <= status <= 599 else UpstreamError.status
    if retry_after is not None and 0 <= retry_after <= _DAY:
        error.retry_after = retry_after
    return error


def part_key(key: str, owner: str, number: int) -> str:
    """Where part `number` of the answer that `owner` brings is found."""
    return f"p:{key.partition(':')[2]}:{owner}:{number}"


def wanted_key(key: str, owner: str) -> str:
    """Where it is said that another process wants them."""
    return f"w:{key.partition(':')[2]}:{owner}"


def _is_fit(head: Head) -> bool:
    """Whether it can be sent to somebody: stores are not only written by us."""
    status, lines, _ = head
    return 200 <= status <= 599 and not any(
        _UNFIT.search(value) or not _NAME.fullmatch(name) for name, value in lines
    )


def _sum(key: str, data: bytes) -> bytes:
    return zlib.crc32(data, zlib.crc32(key.encode())).to_bytes(_CHECKSUM, "big")
