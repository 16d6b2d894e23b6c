"""Base64 text of any length that is checked as a whole, but decoded only where it is asked for."""

from __future__ import annotations

from binascii import a2b_base64
from bisect import bisect_right

from ai_proxy_mw.schema.json_text import BadText, unescaped

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

_BLOCK = 64 * 1024
"""Characters that are looked at, and copied, at once."""

_ESCAPE = 6
"""Characters of the longest escape in JSON."""


class BadBase64(ValueError):
    """What is wrong with the text, to follow "the Base64 text"."""


class Base64Text:
    r"""Text in the standard alphabet, with its padding and nothing else (RFC 4648, section 4).

    text: the inside of a JSON string as it stands in a body. Escapes in it are understood (see
        `json_text`): a slash may be written as `\/`, a plus as `\u002B`. It is never copied as a
        whole, and must not change.

    `size` is how many bytes it stands for.

    Bits behind the last byte may be set (section 3.5 leaves that open, and decoders drop them).

    Raises BadBase64 when made.
    """

    __slots__ = ("_escaped", "_held", "_plain_starts", "_raw_starts", "_text", "size")

    def __init__(self, text: bytes | memoryview) -> None:
        self._text = memoryview(text)
        self._escaped = False
        # Where each block begins, in characters without escapes and in those that are there.
        self._plain_starts: list[int] = []
        self._raw_starts: list[int] = []
        # The block that was looked at last, and its number: the next look is often at the same.
        self._held = (-1, b"")
        self.size = self._read()

    def head(self, count: int) -> bytes:
        """The first bytes, as many as there are."""
        return self.slice(0, count)

    def tail(self, count: int) -> bytes:
        """The last bytes, as many as there are."""
        return self.slice(self.size - count, self.size)

    def slice(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`; what is outside is left out."""
        if start < 0:
            start = 0
        if end > self.size:
            end = self.size
        if end <= start:
            return b""
        before = start % 3
        first, last = start // 3 * 4, (end + 2) // 3 * 4
        letters = self._unescaped(first, last) if self._escaped else self._text[first:last]
        return a2b_base64(letters)[before : before + end - start]

    def _unescaped(self, start: int, end: int) -> bytes:
        number = bisect_right(self._plain_starts, start) - 1
        skipped = start - self._plain_starts[number]
        letters = self._plain_block(number)[skipped : skipped + end - start]
        while len(letters) < end - start:
            number += 1
            letters += self._plain_block(number)[: end - start - len(letters)]
        return letters

    def _plain_block(self, number: int) -> bytes:
        if self._held[0] != number:
            self._held = number, _plain(self._block(self._raw_starts[number]))
        return self._held[1]

    def _block(self, start: int) -> bytes:
        """The characters from there on, and no part of an escape at their end."""
        block = bytes(self._text[start : start + _BLOCK])
        if start + _BLOCK < len(self._text):
            cut = block.rfind(b"\\", 1 - _ESCAPE)
            # An escaped backslash may be torn here. It is none of the alphabet, so it is refused.
            return block if cut < 0 else block[:cut]
        return block

    def _read(self) -> int:
        """Check all of it; gives the number of bytes."""
        letters = padding = raw = 0
        while raw < len(self._text):
            block = self._block(raw)
            self._escaped = self._escaped or b"\\" in block
            self._plain_starts.append(letters + padding)
            self._raw_starts.append(raw)
            raw += len(block)
            plain = _plain(block)
            data = plain.rstrip(b"=")
            if data and padding:
                raise BadBase64("has padding before its end")
            _check_letters(data)
            letters += len(data)
            padding += len(plain) - len(data)
        _check_lengths(letters, padding)
        return letters * 3 // 4


def _plain(block: bytes) -> bytes:
    if b"\\" not in block:
        return block
    try:
        return unescaped(block).encode()
    except BadText as error:
        raise BadBase64(str(error)) from None


def _check_letters(data: bytes) -> None:
    # By far the quickest way to find a strange one: a third of the time of decoding.
    strange = set(data.translate(None, _ALPHABET))
    if not strange:
        return
    if strange & set(b" \t\n\r\v\f"):
        raise BadBase64("has spaces or line breaks in it")
    if strange <= set(b"-_"):
        raise BadBase64("is in the alphabet for URLs: write + and / in place of - and _")
    if strange == set(b"="):
        raise BadBase64("has padding before its end")
    raise BadBase64("has characters in it that are not of Base64")


def _check_lengths(letters: int, padding: int) -> None:
    if not letters:
        raise BadBase64("is empty")
    if letters % 4 == 1:
        raise BadBase64("has a length that Base64 cannot have: it may have been cut")
    if padding < -letters % 4:
        raise BadBase64("lacks its padding: write = until the length is a multiple of four")
    if padding > -letters % 4:
        raise BadBase64("has too much padding")
