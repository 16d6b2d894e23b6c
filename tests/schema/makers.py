"""Small pictures, sounds and files, written by hand."""

from __future__ import annotations

import struct
from zlib import compress, crc32


def chunk(name: bytes, data: bytes = b"") -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))


def png(
    width: int = 2,
    height: int = 3,
    *,
    depth: int = 8,
    colour: int = 2,
    interlace: int = 0,
    before: bytes = b"",
    data: bytes | None = None,
) -> bytes:
    """A red one, or one whose header says so."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    if data is None:
        data = chunk(b"IDAT", compress((b"\0" + b"\xff\0\0" * 2) * 3))
    return b"\x89PNG\r\n\x1a\n" + header + before + data + chunk(b"IEND")


def segment(marker: int, data: bytes = b"") -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(data)) + data


def frame(width: int = 2, height: int = 3, *, marker: int = 0xC0, precision: int = 8) -> bytes:
    """The frame header of a JPEG in grey."""
    return segment(marker, struct.pack(">BHHB", precision, height, width, 1) + b"\x01\x11\0")


SCAN = segment(0xDA, b"\x01\x01\0\0\x3f\0") + b"\x12\xff\0\x34\xff\xd0\x56"
JFIF = segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")


def jpeg(
    width: int = 2, height: int = 3, *, before: bytes = JFIF, middle: bytes | None = None
) -> bytes:
    """One with a header, and a scan that is none."""
    head = frame(width, height) if middle is None else middle
    return b"\xff\xd8" + before + head + SCAN + b"\xff\xd9"


def gif_frame(width: int = 2, height: int = 3, *, left: int = 0, colours: bool = False) -> bytes:
    flags = 0x80 if colours else 0
    table = bytes(6) if colours else b""
    head = b"," + struct.pack("<HHHHB", left, 0, width, height, flags)
    return head + table + b"\x02\x02\x44\x01\0"


def gif(
    width: int = 2, height: int = 3, *, blocks: bytes | None = None, version: bytes = b"89a"
) -> bytes:
    """One with a table of two colours and one frame."""
    head = b"GIF" + version + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + (gif_frame(width, height) if blocks is None else blocks) + b";"


def riff(form: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    parts = b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + form + parts


def vp8(width: int = 2, height: int = 3) -> tuple[bytes, bytes]:
    return b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + b"\0\0\0"


def vp8l(width: int = 2, height: int = 3) -> tuple[bytes, bytes]:
    return b"VP8L", b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + b"\0" * 6


def vp8x(width: int = 2, height: int = 3, flags: int = 0) -> tuple[bytes, bytes]:
    return b"VP8X", bytes([flags, 0, 0, 0]) + three(width - 1) + three(height - 1)


def anmf(width: int = 2, height: int = 3, left: int = 0) -> tuple[bytes, bytes]:
    sides = three(left) + three(0) + three(width - 1) + three(height - 1)
    return b"ANMF", sides + b"\x64\0\0\0" + vp8(width, height)[1]


def three(number: int) -> bytes:
    return number.to_bytes(3, "little")


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    return riff(b"WEBP", *(chunks or (vp8(),)))


def wav(rate: int = 8000, channels: int = 1) -> bytes:
    form = struct.pack("<HHIIHH", 1, channels, rate, rate, 1, 8)
    return riff(b"WAVE", (b"fmt ", form), (b"data", b"\x80" * 8))


def mp3(version: int = 3, *, rate: int = 0, index: int = 9, frames: int = 2) -> bytes:
    """Frames of 128 kbit/s at 44,100 Hz for version 3 (MPEG-1): 417 bytes each."""
    from ai_proxy_mw.schema.sniffing.frames import _mp3_length

    head = bytes([0xFF, 0xE0 | version << 3 | 0x03, index << 4 | rate << 2, 0])
    return (head + bytes(_mp3_length(head) - 4)) * frames


def aac(frames: int = 2, length: int = 20) -> bytes:
    head = bytes([0xFF, 0xF1, 0x50, 0x80 | length >> 11, length >> 3 & 0xFF, (length & 7) << 5, 0])
    return (head + bytes(length - 7)) * frames


def flac(rate: int = 44_100) -> bytes:
    info = bytes(10) + (rate << 4).to_bytes(3, "big") + bytes(21)
    return b"fLaC" + b"\x80\0\0\x22" + info


def ogg(codec: bytes) -> bytes:
    return b"OggS\0\x02" + bytes(20) + b"\x01" + bytes([len(codec) + 8]) + codec + bytes(8)


def box(brand: bytes, *compatible: bytes) -> bytes:
    data = brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 8 + len(data)) + b"ftyp" + data + b"\0\0\0\x08mdat"


def matroska(kind: bytes) -> bytes:
    return (
        b"\x1aE\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82" + bytes([0x80 | len(kind)]) + kind + bytes(9)
    )


def id3(length: int = 300, *, footer: bool = False) -> bytes:
    seven = bytes([0, 0, length >> 7, length & 0x7F])
    return b"ID3\x04\0" + (b"\x10" if footer else b"\0") + seven + bytes(length + 10 * footer)


PDF = b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"
ZIP = b"PK\x05\x06" + bytes(18)
