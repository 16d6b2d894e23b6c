"""Of which kind a file is, by its first bytes."""

from __future__ import annotations

import re
import struct

from ai_proxy_mw.schema.sniffing.frames import is_adts, is_mp3
from ai_proxy_mw.schema.sniffing.source import Source

HEAD = 1024
"""Bytes of a file that are enough to tell."""

# The first match holds. Sources: each format's own specification; WHATWG MIME Sniffing, section 6.
_SIGNS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(sign, re.DOTALL))
    for kind, sign in (
        ("png", rb"\x89PNG\r\n\x1a\n"),
        ("jpeg", rb"\xff\xd8\xff"),
        ("gif", rb"GIF8[79]a"),
        ("webp", rb"RIFF....WEBP"),
        ("wav", rb"RIFF....WAVE"),
        ("flac", rb"fLaC"),
        # The third byte of an Ogg page is its version; the name of the codec follows the table of
        # segments (RFC 3533, section 6; RFC 7845, section 5.1).
        ("opus", rb"OggS\0.{21}\x01.OpusHead"),
        ("ogg", rb"OggS\0.{21}\x01.(?:\x01vorbis|\x7fFLAC|Speex   )"),
        # The document type is told early in the header (RFC 8794, section 11.2.6).
        ("webm", rb"\x1aE\xdf\xa3.{0,60}?B\x82.{1,8}?webm"),
        ("matroska", rb"\x1aE\xdf\xa3.{0,60}?B\x82.{1,8}?matroska"),
        ("pdf", rb"(?:\xef\xbb\xbf)?\s*%PDF-\d\.\d"),
        ("bmp", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
        ("tiff", rb"II[*+]\0|MM\0[*+]"),
        ("ico", rb"\0\0[\x01\x02]\0[^\0]"),
        ("zip", rb"PK(?:\x03\x04|\x05\x06)"),
    )
)

# ISO/IEC 23008-12 (HEIF), annex B, and the AV1 Image File Format, section 6.
_PICTURE_BRANDS = {
    b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"heim": "heic",
    b"heis": "heic", b"hevc": "heic", b"hevx": "heic", b"mif1": "heic", b"msf1": "heic",
}  # fmt: skip

_MARKUP = re.compile(rb"\s*<(?:[!?]|[a-z])", re.IGNORECASE)
_SVG = re.compile(rb"<(?:[a-z]+:)?svg[\s>]", re.IGNORECASE)
_SVG_START = re.compile(rb"<(?:[!?]|(?:[a-z]+:)?svg[\s>])", re.IGNORECASE)
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def kind_of(source: Source) -> str:
    """Its kind, of which the beginning is enough.

    Pictures: png, jpeg, webp, gif, svg, bmp, tiff, avif, heic, ico. Sounds: wav, mp3, flac, ogg,
    opus (in Ogg), m4a, mp4 (with pictures or without), webm, matroska, aac (ADTS). Others: pdf,
    zip, markup (HTML, XML). Else unknown.
    """
    head = source.slice(0, HEAD)
    for kind, sign in _SIGNS:
        if sign.match(head):
            return kind
    return _boxes(head) or _frames(source, head) or _markup(head) or "unknown"


def _boxes(head: bytes) -> str | None:
    """ISO/IEC 14496-12, section 4.3: the first box tells what reads the file."""
    if head[4:8] != b"ftyp" or len(head) < 16:
        return None
    length = struct.unpack(">I", head[:4])[0]
    if length < 16 or length % 4:
        return None
    brand = head[8:12]
    if brand in _PICTURE_BRANDS:
        # HEIF's own brand comes first in some AVIF, too.
        return "avif" if b"avif" in head[16:length] else _PICTURE_BRANDS[brand]
    return "m4a" if brand in (b"M4A ", b"M4B ") else "mp4"


def _frames(source: Source, head: bytes) -> str | None:
    start = _behind_id3(head)
    if start:
        # What the tag is in front of, if it is there to see.
        sign = source.slice(start, start + 4)
        if sign == b"fLaC":
            return "flac"
        return "aac" if is_adts(source, start) else "mp3"
    if is_mp3(source, 0):
        return "mp3"
    return "aac" if is_adts(source, 0) else None


def _behind_id3(head: bytes) -> int:
    """Where the tag in front ends (ID3v2.4.0, section 3.1); 0 for none."""
    if not head.startswith(b"ID3") or len(head) < 10 or max(head[6:10]) > 0x7F:
        return 0
    length = 0
    for seven_bits in head[6:10]:
        length = length << 7 | seven_bits
    has_footer = head[5] & 0x10
    return 10 + length + (10 if has_footer else 0)


def _markup(head: bytes) -> str | None:
    for mark in _MARKS:
        head = head.removeprefix(mark)
    # Every other byte of UTF-16 is a zero.
    text = head.replace(b"\0", b"").lstrip()
    if not _MARKUP.match(text):
        return None
    return "svg" if _SVG_START.match(text) and _SVG.search(text) else "markup"
