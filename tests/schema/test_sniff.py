"""What files really are, read from their heads and their structure."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw.schema.base64text import Base64Text
from ai_proxy_mw.schema.sniffing import jpeg as jpeg_module
from ai_proxy_mw.schema.sniffing.kind import kind_of
from ai_proxy_mw.schema.sniffing.pdf import check_pdf
from ai_proxy_mw.schema.sniffing.pictures import read_picture
from ai_proxy_mw.schema.sniffing.sounds import check_sound
from ai_proxy_mw.schema.sniffing.source import Broken, Plain, Polyglot, Size
from tests.schema.makers import (
    JFIF,
    PDF,
    SCAN,
    ZIP,
    aac,
    anmf,
    box,
    chunk,
    flac,
    frame,
    gif,
    gif_frame,
    id3,
    jpeg,
    matroska,
    mp3,
    ogg,
    png,
    riff,
    segment,
    vp8,
    vp8l,
    vp8x,
    wav,
    webp,
)

KINDS = [
    ("png", png()),
    ("jpeg", jpeg()),
    ("gif", gif()),
    ("gif", gif(version=b"87a")),
    ("webp", webp()),
    ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ("svg", b"\xef\xbb\xbf <?xml version='1.0'?><!-- x --><svg:svg>"),
    ("svg", '\ufeff<?xml version="1.0"?><svg >'.encode("utf-16-le")),
    ("svg", '\ufeff<?xml version="1.0"?><svg >'.encode("utf-16-be")),
    ("svg", b"<!DOCTYPE svg PUBLIC><svg\n>"),
    ("markup", b"<html><svg></svg></html>"),
    ("markup", b"<!DOCTYPE html>"),
    ("markup", b"<?xml version='1.0'?><a/>"),
    ("markup", b"\n<?php echo 1;"),
    ("bmp", b"BM" + bytes(12) + b"\x28\0\0\0" + bytes(36)),
    ("tiff", b"II*\0" + bytes(8)),
    ("tiff", b"MM\0*" + bytes(8)),
    ("tiff", b"II+\0" + bytes(8)),
    ("ico", b"\0\0\x01\0\x01\0" + bytes(16)),
    ("avif", box(b"avif", b"mif1")),
    ("avif", box(b"mif1", b"avif")),
    ("heic", box(b"heic", b"mif1")),
    ("heic", box(b"mif1", b"heic")),
    ("wav", wav()),
    ("mp3", mp3()),
    ("mp3", mp3(2)),
    ("mp3", mp3(0)),
    ("mp3", mp3(rate=1, index=14)),
    ("mp3", mp3(frames=1)),
    ("mp3", mp3() + b"TAG" + bytes(125)),
    ("mp3", id3() + mp3()),
    ("mp3", id3()),
    ("flac", flac()),
    ("flac", id3() + flac()),
    ("flac", id3(footer=True) + flac()),
    ("ogg", ogg(b"\x01vorbis")),
    ("ogg", ogg(b"\x7fFLAC")),
    ("opus", ogg(b"OpusHead")),
    ("m4a", box(b"M4A ", b"isom")),
    ("mp4", box(b"isom", b"mp42")),
    ("webm", matroska(b"webm")),
    ("matroska", matroska(b"matroska")),
    ("aac", aac()),
    ("aac", aac(1)),
    ("aac", aac() + b"TAG" + bytes(125)),
    ("aac", id3() + aac()),
    ("pdf", PDF),
    ("pdf", b"\xef\xbb\xbf\n" + PDF),
    ("zip", b"PK\x03\x04" + bytes(26)),
    ("zip", ZIP),
]

UNKNOWN = [
    b"",
    b"\0",
    b"hello",
    b"< 3",
    b"BM" + bytes(60),
    b"RIFF\0\0\0\0AVI ",
    b"GIF88a",
    b"\x89PNG\n\x1a\n",
    b"%PDF-x.y",
    b"x%PDF-1.4",
    ogg(b"\x80theora"),
    matroska(b"other"),
    box(b"isom")[:15],
    struct.pack(">I", 8) + b"ftypM4A " + bytes(9),
    struct.pack(">I", 17) + b"ftypM4A " + bytes(9),
    b"ID3\x04\0\0\x80\0\0\0",
    b"ID3\x04\0\0\0",
    bytes([0xFF, 0xEB, 0x90, 0]),  # a version that is reserved
    bytes([0xFF, 0xFD, 0x90, 0]),  # layer II
    bytes([0xFF, 0xFB, 0x9C, 0]),  # a rate that is reserved
    bytes([0xFF, 0xFB, 0x00, 0]),  # of any bit rate
    bytes([0xFF, 0xFB, 0xF0, 0]),  # a bit rate that cannot be
    bytes([0xFF, 0xFB, 0x90]),
    mp3(frames=1) + b"else",
    bytes([0xFF, 0xF1, 0x7C, 0x80, 0x02, 0x80, 0]),  # a rate that is reserved
    bytes([0xFF, 0xF1, 0x50, 0x80, 0x00, 0x80, 0]),  # shorter than its head
    bytes([0xFF, 0xF1, 0x50]),
    aac(1) + b"elsewhere",
]


@pytest.mark.parametrize(("kind", "data"), KINDS)
def test_kinds(kind: str, data: bytes) -> None:
    assert kind_of(Plain(data)) == kind


@pytest.mark.parametrize("data", UNKNOWN)
def test_what_is_of_no_kind(data: bytes) -> None:
    assert kind_of(Plain(data)) == "unknown"


def test_the_length_of_a_frame_is_as_the_standard_reckons_it() -> None:
    assert len(mp3(frames=1)) == 144 * 128_000 // 44_100
    assert len(mp3(2, index=8, frames=1)) == 72 * 64_000 // 22_050
    assert len(mp3(0, index=8, rate=2, frames=1)) == 72 * 64_000 // 8_000


EXIF = segment(0xE1, b"Exif\0\0" + jpeg() + bytes(65_000))

PICTURES: list[tuple[str, bytes, Size]] = [
    ("png", png(), Size(2, 3, False)),
    ("png", png(5, 7, depth=16, colour=6, interlace=1), Size(5, 7, False)),
    ("png", png(before=chunk(b"tEXt", b"Comment\0x")), Size(2, 3, False)),
    ("png", png(before=chunk(b"acTL", bytes(8))), Size(2, 3, True)),
    ("png", png() + bytes(1000), Size(2, 3, False)),
    ("png", png(60_000, 60_000), Size(60_000, 60_000, False)),
    ("jpeg", jpeg(), Size(2, 3, False)),
    ("jpeg", jpeg(640, 480, before=EXIF * 3), Size(640, 480, False)),
    ("jpeg", jpeg(before=JFIF + b"\xff" * 5 + segment(0xFE, b"hello")), Size(2, 3, False)),
    ("jpeg", jpeg(before=b"\xff" * 1_000 + segment(0xFE)), Size(2, 3, False)),
    ("jpeg", jpeg(before=b"\xff\xd0\xff\x01"), Size(2, 3, False)),
    ("jpeg", jpeg(middle=segment(0xC4, bytes(17)) + frame(9, 9, marker=0xC2)), Size(9, 9, False)),
    ("jpeg", jpeg(middle=frame(9, 9, precision=12) + segment(0xDD, b"\0\1")), Size(9, 9, False)),
    ("jpeg", jpeg() + bytes(5000), Size(2, 3, False)),
    ("jpeg", jpeg() + b"\r\n", Size(2, 3, False)),
    ("gif", gif(), Size(2, 3, False)),
    ("gif", gif(version=b"87a"), Size(2, 3, False)),
    ("gif", gif(blocks=gif_frame() * 2), Size(2, 3, True)),
    ("gif", gif(blocks=b"!\xf9\x04\0\0\0\0\0" + gif_frame(colours=True)), Size(2, 3, False)),
    ("gif", gif(blocks=b"!\xff\x0bNETSCAPE2.0\x03\1\0\0\0" + gif_frame()), Size(2, 3, False)),
    ("gif", gif(blocks=gif_frame(500, 9, left=100) + b"\0"), Size(600, 9, False)),
    ("gif", gif(0, 0, blocks=gif_frame(4, 5)), Size(4, 5, False)),
    ("gif", gif() + b"\n", Size(2, 3, False)),
    ("webp", webp(), Size(2, 3, False)),
    ("webp", webp(vp8(640, 480)), Size(640, 480, False)),
    ("webp", webp(vp8l(16_384, 1)), Size(16_384, 1, False)),
    ("webp", webp(vp8l(), (b"EXIF", b"x")), Size(2, 3, False)),
    ("webp", webp(vp8x(5, 6), (b"ICCP", b"x"), vp8(5, 6)), Size(5, 6, False)),
    ("webp", webp(vp8x(5, 6, 0x10), (b"ALPH", b"x"), vp8(5, 6)), Size(5, 6, False)),
    ("webp", webp(vp8x(5, 6, 2), (b"ANIM", bytes(6)), anmf(5, 6)), Size(5, 6, True)),
    ("webp", webp(vp8x(5, 6), (b"ANIM", bytes(6)), anmf(1, 6, 2)), Size(5, 6, True)),
    ("webp", webp() + bytes(9), Size(2, 3, False)),
]

# With what cameras put behind the end.
BEHIND = [
    ("jpeg", jpeg() + jpeg(9, 9), Size(2, 3, False)),
    ("jpeg", jpeg() + jpeg(9, 9) + bytes(99), Size(2, 3, False)),
    ("jpeg", jpeg() + jpeg(9, 9)[:-2], Size(2, 3, False)),
    ("jpeg", jpeg() + bytes(9) + box(b"mp42") + bytes(200_000), Size(2, 3, False)),
    (
        "jpeg",
        jpeg() + b"notes" + b"SEFH" + bytes(20) + struct.pack("<I", 24) + b"SEFT",
        Size(2, 3, False),
    ),
]


@pytest.mark.parametrize(("kind", "data", "size"), PICTURES + BEHIND)
def test_pictures_tell_their_size(kind: str, data: bytes, size: Size) -> None:
    assert kind_of(Plain(data)) == kind
    assert read_picture(kind, Plain(data)) == size


@pytest.mark.parametrize(("kind", "data", "size"), PICTURES)
def test_a_picture_that_is_cut_anywhere_is_broken(kind: str, data: bytes, size: Size) -> None:
    whole = len(data.rstrip(b"\0\r\n"))
    for length in range(0, whole, 1 + whole // 2000):
        with pytest.raises((Broken, Polyglot)):
            read_picture(kind, Plain(data[:length]))


def with_header(header: bytes) -> bytes:
    return png().replace(png()[8:33], header)


def png_header(*fields: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))


BROKEN = [
    ("png", png()[:8] + png()[33:], "no header"),
    ("png", png()[:29] + b"\0\0\0\0" + png()[33:], "no header"),
    ("png", with_header(png_header(0, 1, 8, 2, 0, 0, 0)), "no size"),
    ("png", with_header(png_header(1, 0, 8, 2, 0, 0, 0)), "no size"),
    ("png", with_header(png_header(2**31, 1, 8, 2, 0, 0, 0)), "no size"),
    ("png", with_header(png_header(1, 1, 4, 2, 0, 0, 0)), "not know"),
    ("png", with_header(png_header(1, 1, 8, 5, 0, 0, 0)), "not know"),
    ("png", with_header(png_header(1, 1, 8, 2, 1, 0, 0)), "not know"),
    ("png", with_header(png_header(1, 1, 8, 2, 0, 1, 0)), "not know"),
    ("png", with_header(png_header(1, 1, 8, 2, 0, 0, 2)), "not know"),
    ("png", png(before=chunk(b"a\0cd")), "cannot be one"),
    ("png", png(before=b"\xff\xff\xff\xffabcd"), "cannot be one"),
    ("png", png(before=b"\x7f\xff\xff\xffabcd"), "cut off"),
    ("png", png(data=b""), "no image data"),
    ("png", png(before=chunk(b"abcd") * 6000), "too many chunks"),
    ("jpeg", jpeg(middle=b""), "no frame header"),
    ("jpeg", jpeg(middle=b"\xff\xd9"), "no picture"),
    ("jpeg", jpeg(middle=b"\xff\xd8"), "no picture"),
    ("jpeg", jpeg(middle=b"\xff\0"), "no picture"),
    ("jpeg", jpeg(middle=b"xy"), "between its segments"),
    ("jpeg", jpeg(middle=frame() * 2), "two frame headers"),
    ("jpeg", jpeg(0, 3), "no size"),
    ("jpeg", jpeg(3, 0), "no size"),
    ("jpeg", jpeg(middle=segment(0xC0, b"\x08\0\1")), "too short"),
    ("jpeg", jpeg(middle=segment(0xC0, b"\x08\0\1\0\1\0")), "not know"),
    ("jpeg", jpeg(middle=segment(0xC0, b"\x08\0\1\0\1\2\1\1\1")), "not know"),
    ("jpeg", jpeg(middle=frame(precision=17)), "not know"),
    ("jpeg", jpeg(middle=b"\xff\xe1\0\1"), "longer than the file"),
    ("jpeg", jpeg(middle=b"\xff\xe1\xff\xff"), "longer than the file"),
    ("jpeg", jpeg(before=segment(0xFE) * 6000), "too many segments"),
    ("jpeg", jpeg()[:-2], "cut off"),
    ("jpeg", jpeg()[:-2] + bytes(100_000), "cut off"),
    ("gif", gif(blocks=b""), "no picture"),
    ("gif", gif(0, 0, blocks=gif_frame(0, 0)), "no picture"),
    ("gif", gif(blocks=b"x"), "not know"),
    ("gif", gif(blocks=gif_frame().replace(b"\x02\x02", b"\x00\x02")), "code size"),
    ("gif", gif(blocks=gif_frame().replace(b"\x02\x02", b"\x0c\x02")), "code size"),
    ("gif", gif(blocks=b"!\xfe" + b"\x01x" * 6000 + b"\0" + gif_frame()), "too many blocks"),
    ("gif", gif(blocks=bytes(6000) + gif_frame()), "too many blocks"),
    ("gif", gif()[:-2], "cut off"),
    ("webp", riff(b"WEBP"), "no picture"),
    ("webp", riff(b"WEBP", (b"EXIF", b"x")), "does not begin"),
    ("webp", webp(vp8x()), "not one picture"),
    ("webp", webp(vp8x(), vp8(), vp8()), "not one picture"),
    ("webp", webp(vp8x(2, 3), vp8(20, 30)), "another size"),
    ("webp", webp(vp8(), vp8()), "not one picture"),
    ("webp", webp(vp8x(2, 3, 2)), "no frames"),
    ("webp", webp(vp8x(2, 3), (b"ANIM", bytes(6))), "no frames"),
    ("webp", webp(vp8x(2, 3, 2), anmf(3, 3)), "outside"),
    ("webp", webp(vp8x(2, 3, 2), anmf(2, 4)), "outside"),
    ("webp", webp(vp8x(2, 3, 2), anmf(2, 3, 1)), "outside"),
    ("webp", webp(vp8(0, 3)), "lossy"),
    ("webp", webp(vp8(3, 0)), "lossy"),
    ("webp", webp((b"VP8 ", b"\x11" + vp8()[1][1:])), "lossy"),
    ("webp", webp((b"VP8 ", bytes(10))), "lossy"),
    ("webp", webp((b"VP8L", bytes(10))), "lossless"),
    ("webp", webp((b"VP8L", b"\x2f\xff\xff\xff\xff" + bytes(5))), "lossless"),
    ("webp", webp((b"VP8 ", b"")), "cut off"),
    ("webp", webp()[:16] + b"\xff\xff" + webp()[18:], "longer than the file"),
    ("webp", webp(vp8(), *[(b"EXIF", b"")] * 6000), "too many chunks"),
]


@pytest.mark.parametrize(("kind", "data", "message"), BROKEN)
def test_headers_without_sense_are_broken(kind: str, data: bytes, message: str) -> None:
    assert kind_of(Plain(data)) == kind
    with pytest.raises(Broken, match=message):
        read_picture(kind, Plain(data))


POLYGLOTS = [
    ("png", png() + ZIP),
    ("png", png() + PDF),
    ("png", png() + b"<script>alert(1)</script>"),
    ("png", png() + bytes(70_000)),
    ("png", png(before=chunk(b"tEXt", b"Comment\0%PDF-1.4"))),
    ("png", png(before=chunk(b"tEXt", b"Comment\0<?php system($x);"))),
    ("png", png(data=chunk(b"IDAT") + chunk(b"zTXt", ZIP))),
    ("jpeg", jpeg() + ZIP),
    ("jpeg", jpeg() + ZIP + b"\xff\xd9"),
    ("jpeg", jpeg() + PDF),
    ("jpeg", jpeg() + b"<html><body>" + bytes(10)),
    ("jpeg", jpeg() + b"<html><body>\xff\xd9"),
    ("jpeg", jpeg() + bytes(2000) + b"<html><body>\xff\xd9"),
    ("jpeg", jpeg() + b"<?php x();"),
    ("jpeg", jpeg() + png()),
    ("jpeg", jpeg() + b"junk"),
    ("jpeg", jpeg() + b"SEFT"),
    ("jpeg", jpeg() + b"notes" + bytes(24) + struct.pack("<I", 24) + b"SEFT"),
    ("jpeg", jpeg(before=segment(0xFE, b"%PDF-1.5"))),
    ("jpeg", jpeg(before=segment(0xFE, b"<SCRIPT >x"))),
    ("jpeg", jpeg() + box(b"mp42") + ZIP),
    ("gif", gif() + ZIP),
    ("gif", gif() + b"<!DOCTYPE html>"),
    ("gif", gif() + gif()),
    ("gif", gif(blocks=b"!\xfe\x0a<script>x!\0" + gif_frame())),
    ("webp", webp() + ZIP),
    ("webp", webp() + b"x"),
    ("webp", webp(vp8(), (b"XMP ", ZIP))),
]


@pytest.mark.parametrize(("kind", "data"), POLYGLOTS)
def test_what_is_also_something_else_is_refused(kind: str, data: bytes) -> None:
    assert kind_of(Plain(data)) == kind
    with pytest.raises(Polyglot):
        read_picture(kind, Plain(data))


def test_the_end_of_a_jpeg_is_found_across_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(before=b"", middle=frame() + SCAN) + box(b"mp42")
    for window in range(1, 30):
        monkeypatch.setattr(jpeg_module, "_WINDOW", window)
        assert read_picture("jpeg", Plain(data)) == Size(2, 3, False)


SEEDS = [data for _, data in KINDS]


def look(data: bytes) -> None:
    """All of the readers, of which none may end otherwise."""
    source = Plain(data)
    readers: list[Callable[[Plain], object]] = [kind_of, check_pdf]
    readers += [partial(read_picture, kind) for kind in ("png", "jpeg", "gif", "webp")]
    readers += [partial(check_sound, kind) for kind in ("wav", "flac", "mp3")]
    for reader in readers:
        with suppress(Broken, Polyglot):
            reader(source)


@given(st.binary(max_size=200))
def test_random_bytes_have_no_other_end(data: bytes) -> None:
    look(data)


@given(
    st.sampled_from(SEEDS),
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.binary(max_size=8),
)
def test_files_with_a_mistake_have_no_other_end(
    data: bytes, start: int, end: int, put: bytes
) -> None:
    look(data[:start] + put + data[end:])


def test_all_beginnings_have_no_other_end() -> None:
    for data in SEEDS:
        for length in range(min(len(data), 80)):
            look(data[:length])


def test_it_is_the_same_in_base64() -> None:
    for kind, data, size in PICTURES + BEHIND:
        text = Base64Text(b64encode(data))
        assert kind_of(text) == kind
        assert read_picture(kind, text) == size


SOUNDS = [
    ("wav", wav()),
    ("wav", riff(b"WAVE", (b"JUNK", b"x"), (b"fmt ", bytes(2) + b"\1\0\x40\x1f" + bytes(12)))),
    ("wav", wav().replace(wav()[4:8], b"\xff\xff\xff\xff")),
    ("flac", flac()),
    ("flac", id3() + flac()),
    ("mp3", mp3()),
]


@pytest.mark.parametrize(("kind", "data"), SOUNDS)
def test_sounds(kind: str, data: bytes) -> None:
    check_sound(kind, Plain(data))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("wav", wav(rate=0)),
        ("wav", wav(channels=0)),
        ("wav", riff(b"WAVE", (b"fmt ", bytes([1, 0, 1, 0, 1, 0, 0, 0])), (b"data", bytes(16)))),
        ("wav", riff(b"WAVE", *[(b"JUNK", b"")] * 99)),
        ("wav", wav()[:20]),
        ("wav", wav()[:12]),
        ("flac", flac(rate=0)),
        ("flac", flac()[:30]),
        ("flac", b"fLaC\x81" + flac()[5:]),
        ("flac", b"fLaC\x80\0\0\x23" + flac()[8:]),
    ],
)
def test_broken_sounds(kind: str, data: bytes) -> None:
    with pytest.raises(Broken):
        check_sound(kind, Plain(data))


@pytest.mark.parametrize("data", [PDF, PDF + bytes(99), PDF.rstrip(), PDF + PDF])
def test_documents(data: bytes) -> None:
    check_pdf(Plain(data))


def test_documents_that_are_not_whole() -> None:
    for wrong in (PDF[:-7], PDF + bytes(2000)):
        with pytest.raises(Broken):
            check_pdf(Plain(wrong))
    for wrong in (PDF + ZIP, PDF + b"<script>"):
        with pytest.raises(Polyglot):
            check_pdf(Plain(wrong))


def test_parts_of_plain_bytes() -> None:
    source = Plain(PDF)
    assert source.slice(-5, 4) == PDF[:4]
    assert source.slice(3, -1) == b""
    assert source.slice(5, 10_000) == PDF[5:]
