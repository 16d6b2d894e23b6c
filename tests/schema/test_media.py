"""The judge: each rule of Images, Audio and Files has its code, and the param of what is wrong."""

from __future__ import annotations

import tracemalloc
from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw._errors import InvalidRequest, NotFound, UnsupportedMediaType
from ai_proxy_mw._media import Audio, Files, Images
from ai_proxy_mw.schema.files import judge_file
from ai_proxy_mw.schema.media import Found, Picture, judge
from ai_proxy_mw.schema.pictures import judge_picture
from ai_proxy_mw.schema.sniffing.source import Plain
from ai_proxy_mw.schema.sounds import judge_sound
from ai_proxy_mw.schema.spec import MediaKind
from tests.schema.makers import (
    PDF,
    ZIP,
    aac,
    anmf,
    box,
    chunk,
    flac,
    gif,
    gif_frame,
    jpeg,
    matroska,
    mp3,
    ogg,
    png,
    segment,
    vp8l,
    vp8x,
    wav,
    webp,
)

SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"


def url(data: bytes, media_type: str = "image/png") -> bytes:
    return b"data:%b;base64,%b" % (media_type.encode(), b64encode(data))


def judged(
    *found: Found,
    images: Images | None = None,
    audio: Audio | None = None,
    files: Files | None = None,
) -> list[Picture]:
    return judge(found, images or Images(), audio or Audio(), files or Files())


@pytest.mark.parametrize("value", [b"https://x.example/a.pdf", b"HTTP:\\/\\/x.example\\/a.pdf"])
def test_a_file_may_be_given_by_its_address_in_the_place_of_its_data(value: bytes) -> None:
    judged(Found("file", "p", value))
    with pytest.raises(InvalidRequest) as caught:
        judged(Found("file", "p", value.replace(b"x.", b"user@x.")))
    assert caught.value.code == "invalid_file"


def image(value: bytes | memoryview, param: str = "p") -> Found:
    return Found("image", param, value)


def data(content: bytes, media_type: str | None = "image/png", param: str = "p") -> Found:
    return Found("image_data", param, b64encode(content), media_type)


def sound(content: bytes, form: str | None = "wav", param: str = "p") -> Found:
    return Found("audio", param, b64encode(content), form)


def file(content: bytes, media_type: str = "application/pdf", param: str = "p") -> Found:
    return Found("file", param, url(content, media_type))


def test_each_part_that_is_right_passes() -> None:
    found = [
        image(url(png()), "messages[0].content[0].image_url.url"),
        image(memoryview(url(jpeg(20, 30), "image/jpg")), "b"),
        data(webp(), "image/webp", "c"),
        data(gif(), None, "d"),
        image(rb"https:\/\/a.example\/b.png", "e"),
        Found("image_link", "f", b"http://a.example"),
        sound(wav(), "wav"),
        file(PDF),
        Found("file", "g", b64encode(PDF)),
        Found("file_link", "h", b"https://a.example/b.pdf"),
    ]
    assert judged(*found) == [
        Picture("messages[0].content[0].image_url.url", None, "png", 2, 3, len(png())),
        Picture("b", None, "jpeg", 20, 30, len(jpeg())),
        Picture("c", None, "webp", 2, 3, len(webp())),
        Picture("d", None, "gif", 2, 3, len(gif())),
        Picture("e", "https://a.example/b.png"),
        Picture("f", "http://a.example"),
    ]


def test_nothing_is_right() -> None:
    assert judged() == []


@pytest.mark.parametrize(
    "value",
    [
        b"DATA:IMAGE/PNG;BASE64," + b64encode(png()),
        url(png(), "image/x-png"),
        url(png(), "image/png;name=a.png"),
        url(png()).replace(b"/", rb"\/").replace(b"+", rb"\u002b"),
        url(jpeg(before=b""), "image/pjpeg"),
    ],
)
def test_other_spellings_pass(value: bytes) -> None:
    assert len(judged(image(value))) == 1


def test_what_is_animated_passes_where_the_owner_says_so() -> None:
    moving = [
        data(png(before=chunk(b"acTL", bytes(8)))),
        data(gif(blocks=gif_frame() * 2), "image/gif"),
        data(webp(vp8x(2, 3, 2), anmf(2, 3)), "image/webp"),
    ]
    assert len(judged(*moving, images=Images(animated=True))) == 3
    for one in moving:
        assert refusal(one).code == "animated_image"


SOUNDS = [
    (wav(), "wav"), (mp3(), "mp3"), (mp3(), "audio/mpeg"), (flac(), "flac"), (flac(), None),
    (ogg(b"\x01vorbis"), "ogg"), (ogg(b"OpusHead"), "ogg"), (ogg(b"OpusHead"), "opus"),
    (ogg(b"OpusHead"), None), (box(b"M4A "), "m4a"), (box(b"isom"), "m4a"), (box(b"isom"), "mp4"),
    (matroska(b"webm"), "webm"), (aac(), "aac"), (wav(), "audio/x-wav"), (wav(), "WAV"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "form"), SOUNDS)
def test_sounds_pass(content: bytes, form: str | None) -> None:
    assert judged(sound(content, form)) == []


def test_sounds_pass_as_data_urls() -> None:
    for media_type in ("audio/wav", "", "audio/x-wav;codecs=1"):
        assert judged(Found("audio", "p", url(wav(), media_type))) == []
        assert judged(Found("audio", "p", url(wav(), media_type), "wav")) == []


def test_opus_passes_where_its_container_does() -> None:
    assert judged(sound(ogg(b"OpusHead"), "opus"), audio=Audio(formats=["ogg"])) == []


@pytest.mark.parametrize(
    "media_type", ["application/pdf", "application/x-pdf", "", "application/octet-stream"]
)
def test_files_pass(media_type: str) -> None:
    assert judged(file(PDF, media_type)) == []
    assert judged(Found("file", "p", b64encode(PDF), media_type)) == []


def refusal(
    *found: Found,
    images: Images | None = None,
    audio: Audio | None = None,
    files: Files | None = None,
) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        judged(*found, images=images, audio=audio, files=files)
    return caught.value


BOMB = png(60_000, 60_000)

WRONG: list[tuple[str, Found]] = [
    ("invalid_image_url", image(b"")),
    ("invalid_image_url", image(b"file-abc123")),
    ("invalid_image_url", image(b"ftp://a.example/b.png")),
    ("invalid_image_url", image(b" " + url(png()))),
    ("invalid_image_url", image(b"https://a.example/b.png ")),
    ("invalid_image_url", image(b"https://user:word@a.example/b.png")),
    ("invalid_image_url", image(b"https:///b.png")),
    ("invalid_image_url", image(b64encode(png()))),
    ("invalid_image_url", image(b"data:image/png," + png())),
    ("invalid_image_url", image(b"data:image/svg+xml;utf8," + SVG)),
    ("invalid_image_url", image(b"data:image/png;base64")),
    ("invalid_image_url", Found("image_link", "p", url(png()))),
    ("invalid_image_url", Found("image_link", "p", b"javascript:alert(1)")),
    ("invalid_base64", image(b"data:image/png;base64,")),
    ("invalid_base64", image(url(png()) + b" ")),
    ("invalid_base64", image(url(png()) + rb"\n")),
    ("invalid_base64", image(url(png())[:-1])),
    ("invalid_base64", image(url(png()).replace(b"KGgo", b"KG-_"))),
    ("invalid_base64", Found("image_data", "p", url(png()), "image/png")),
    ("invalid_base64", Found("image_data", "p", b"####", "image/png")),
    ("invalid_base64", Found("audio", "p", b"", "wav")),
    ("invalid_base64", Found("audio", "p", b"AAA", "wav")),
    ("invalid_base64", Found("file", "p", b"ftp://a.example/b.pdf")),
    ("invalid_base64", Found("file", "p", b"data:application/pdf;base64,****")),
    ("unsupported_image_format", image(url(SVG, "image/svg+xml"))),
    ("unsupported_image_format", image(url(SVG))),
    ("unsupported_image_format", image(url(b"<!DOCTYPE html>"))),
    ("unsupported_image_format", image(url(b"BM" + bytes(12) + b"\x28\0\0\0"))),
    ("unsupported_image_format", image(url(box(b"avif"), "image/avif"))),
    ("unsupported_image_format", image(url(box(b"heic"), "image/jpeg"))),
    ("unsupported_image_format", image(url(b"hello"))),
    ("unsupported_image_format", image(url(PDF))),
    ("unsupported_image_format", image(url(png(), ""))),
    ("unsupported_image_format", image(url(png(), "text/plain"))),
    ("unsupported_image_format", image(url(png(), "application/octet-stream"))),
    ("unsupported_image_format", data(png(), "image/tiff")),
    ("unsupported_image_format", data(png(), "")),
    ("unsupported_image_format", data(png()[:7])),
    ("image_format_mismatch", image(url(jpeg()))),
    ("image_format_mismatch", image(url(png(), "image/webp"))),
    ("image_format_mismatch", data(png(), "image/gif")),
    ("image_dimensions_too_large", image(url(BOMB))),
    ("image_dimensions_too_large", image(url(png(16_385, 1)))),
    ("image_dimensions_too_large", image(url(png(1, 16_385)))),
    ("image_dimensions_too_large", image(url(png(16_000, 16_000)))),
    ("image_dimensions_too_large", data(jpeg(65_535, 65_535), "image/jpeg")),
    ("image_dimensions_too_large", data(gif(65_535, 65_535), "image/gif")),
    ("image_dimensions_too_large", data(gif(1, 1, blocks=gif_frame(60_000, 1)), "image/gif")),
    ("image_dimensions_too_large", data(webp(vp8l(16_384, 16_384)), "image/webp")),
    ("animated_image", image(url(gif(blocks=gif_frame() * 2), "image/gif"))),
    ("broken_image", image(url(png()[:40]))),
    ("broken_image", image(url(png()[:-1]))),
    ("broken_image", image(url(jpeg(0, 0), "image/jpeg"))),
    ("broken_image", data(gif(blocks=b""), "image/gif")),
    ("broken_image", data(webp(vp8x()), "image/webp")),
    ("polyglot_file", image(url(png() + ZIP))),
    ("polyglot_file", image(url(jpeg() + PDF, "image/jpeg"))),
    ("polyglot_file", data(jpeg(before=segment(0xFE, b"<?php x(); ?>")), "image/jpeg")),
    ("polyglot_file", file(PDF + ZIP)),
    ("invalid_audio", sound(b"hello")),
    ("invalid_audio", sound(bytes(1000))),
    ("invalid_audio", sound(bytes(1000), None)),
    ("invalid_audio", sound(wav(rate=0))),
    ("invalid_audio", sound(wav()[:16])),
    ("invalid_audio", sound(flac(0), "flac")),
    ("invalid_audio", Found("audio", "p", b"data:audio/wav,xy", "wav")),
    ("unsupported_audio_format", sound(wav(), "pcm16")),
    ("unsupported_audio_format", sound(wav(), "")),
    ("unsupported_audio_format", sound(wav(), "video/mp4")),
    ("unsupported_audio_format", sound(png(), None)),
    ("unsupported_audio_format", sound(matroska(b"matroska"), None)),
    ("audio_format_mismatch", sound(wav(), "mp3")),
    ("audio_format_mismatch", sound(mp3(), "wav")),
    ("audio_format_mismatch", sound(png(), "wav")),
    ("audio_format_mismatch", sound(ogg(b"\x01vorbis"), "opus")),
    ("audio_format_mismatch", Found("audio", "p", url(wav(), "audio/mpeg"))),
    ("invalid_file", file(b"hello")),
    ("invalid_file", file(png())),
    ("invalid_file", file(PDF[:-8])),
    ("invalid_file", Found("file", "p", b"data:application/pdf,x")),
    ("invalid_file", Found("file_link", "p", b"ftp://a.example/b.pdf")),
    ("invalid_file", Found("file_link", "p", b"C:/b.pdf")),
    ("unsupported_file_format", file(b"hello", "text/plain")),
    ("unsupported_file_format", file(b"hello", "")),
    ("unsupported_file_format", file(PDF, "image/png")),
    ("unsupported_file_format", Found("file", "p", b64encode(ZIP))),
    ("unsupported_file_format", Found("file", "p", b64encode(png()), "application/octet-stream")),
]  # fmt: skip


@pytest.mark.parametrize(("code", "found"), WRONG)
def test_each_mistake_has_its_code(code: str, found: Found) -> None:
    right = [image(url(png()), "x"), sound(wav(), param="y"), file(PDF, param="z")]
    error = refusal(*right, found._replace(param="messages[2].content[0].image_url.url"), *right)
    assert error.code == code
    assert error.param == "messages[2].content[0].image_url.url"
    assert error.status == 400
    assert error.type == "invalid_request_error"
    assert error.message.endswith(".")
    assert error.message[0].isupper()


SMALL = len(png())

LIMITS: list[tuple[str, Images, list[Found]]] = [
    ("image_too_large", Images(max_bytes=SMALL - 1), [data(png())]),
    ("image_too_large", Images(max_total_bytes=SMALL + 1), [data(png(), None, "a"), data(png())]),
    ("too_many_images", Images(max_count=1), [data(png(), None, "a"), data(png())]),
    ("too_many_images", Images(max_count=1), [image(b"https://a", "a"), image(b"https://a")]),
    ("image_dimensions_too_large", Images(max_side=2), [data(png())]),
    ("image_dimensions_too_large", Images(max_pixels=5), [data(png())]),
    ("unsupported_image_format", Images(formats=["jpeg"]), [data(png())]),
    ("unsupported_image_format", Images(formats=["jpeg"]), [data(png(), "image/jpeg")]),
    ("unsupported_image_format", Images(formats=["jpeg"]), [data(png(), None)]),
    ("image_url_refused", Images(urls="refuse"), [image(b"https://a.example")]),
    ("image_url_refused", Images(urls="refuse"), [Found("image_link", "p", b"https://a.example")]),
]  # fmt: skip


@pytest.mark.parametrize(("code", "images", "found"), LIMITS)
def test_the_owners_rules_for_pictures(code: str, images: Images, found: list[Found]) -> None:
    error = refusal(*found, data(png(), param="z"), images=images)
    assert (error.code, error.param) == (code, "p")


def test_what_is_at_the_border_passes() -> None:
    images = Images(
        max_bytes=SMALL, max_total_bytes=2 * SMALL, max_count=2, max_side=3, max_pixels=6
    )
    assert len(judged(data(png()), data(png()), images=images)) == 2
    assert judged(sound(wav()), audio=Audio(max_bytes=len(wav()), max_count=1)) == []
    assert judged(file(PDF), files=Files(max_bytes=len(PDF), max_count=1)) == []


def test_the_owners_rules_for_sounds() -> None:
    error = refusal(sound(wav()), audio=Audio(max_bytes=len(wav()) - 1))
    assert error.code == "audio_too_large"
    error = refusal(sound(wav(), param="a"), sound(wav()), audio=Audio(max_count=1))
    assert (error.code, error.param) == ("too_many_audio", "p")
    for form in ("wav", None):
        error = refusal(sound(wav(), form), audio=Audio(formats=["mp3"]))
        assert error.code == "unsupported_audio_format"


def test_the_owners_rules_for_files() -> None:
    assert refusal(file(PDF), files=Files(max_bytes=len(PDF) - 1)).code == "file_too_large"
    link = Found("file_link", "a", b"https://a.example")
    error = refusal(link, file(PDF), files=Files(max_count=1))
    assert (error.code, error.param) == ("too_many_files", "p")
    assert refusal(file(PDF), files=Files(formats=[])).code == "unsupported_file_format"


def test_the_data_are_never_told() -> None:
    secret = "c2VjcmV0"
    for kind in ("image", "image_data", "image_link", "audio", "file", "file_link"):
        for value in (f"data:{secret}/{secret};base64,{secret}", secret, f"https://{secret}@a/"):
            with suppress(InvalidRequest):
                judged(Found(kind, "p", value.encode(), secret))
                continue
            assert secret not in refusal(Found(kind, "p", value.encode(), secret)).message


def test_files_are_judged_by_themselves_too() -> None:
    seen = judge_picture(Plain(jpeg(9, 9)), "image/jpeg; charset=binary", Images(), "p")
    assert seen == Picture("p", None, "jpeg", 9, 9, len(jpeg()))
    assert judge_sound(Plain(box(b"isom")), "audio/mp4", Audio(), "p") == "m4a"
    assert judge_file(Plain(PDF), None, Files(), "p") == "pdf"


def test_other_errors_may_have_a_code_of_their_own() -> None:
    assert InvalidRequest("x").code == "invalid_request"
    assert UnsupportedMediaType("x", code="y").code == "y"
    assert NotFound().code == "unknown_url"


KINDS: list[MediaKind] = ["image", "image_data", "image_link", "audio", "file", "file_link"]


@given(st.sampled_from(KINDS), st.binary(max_size=80), st.none() | st.text(max_size=12))
def test_random_values_have_no_other_end(
    kind: MediaKind, value: bytes, declared: str | None
) -> None:
    for one in (value, b64encode(value), url(value), b"https://" + value):
        with suppress(InvalidRequest):
            judged(Found(kind, "p", one, declared))


@given(
    st.sampled_from([png(), jpeg(), gif(), webp(), wav(), mp3(), PDF]),
    st.integers(0, 400),
    st.binary(max_size=4),
)
def test_files_with_a_mistake_have_no_other_end(content: bytes, place: int, put: bytes) -> None:
    wrong = content[:place] + put + content[place + len(put) :]
    for kind in KINDS:
        with suppress(InvalidRequest):
            judged(Found(kind, "p", b64encode(wrong)))
            judged(Found(kind, "p", url(wrong, "image/gif")))


def large_png(size: int) -> bytes:
    return png(1000, 1000, data=chunk(b"IDAT", bytes(8192)) * (size // 8204))


def test_large_pictures_take_little_memory() -> None:
    body = memoryview(url(large_png(1_500_000)))
    found = [image(body, f"p{number}") for number in range(10)]
    tracemalloc.start()
    try:
        assert len(judged(*found)) == 10
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


BUSY = [
    (jpeg(before=segment(0xFE) * 250_000), "image/jpeg"),
    (jpeg(before=(b"\xff" + segment(0xFE)) * 250_000), "image/jpeg"),
    (jpeg(before=b"\xff\xd0" * 500_000), "image/jpeg"),
    (gif(blocks=b"!\xfe" + b"\x01x" * 500_000 + b"\0" + gif_frame()), "image/gif"),
    (gif(blocks=bytes(1_000_000)), "image/gif"),
    (png(before=chunk(b"abcd") * 90_000), "image/png"),
    (webp(vp8l(), *[(b"abcd", b"")] * 120_000), "image/webp"),
]


@pytest.mark.parametrize(("content", "media_type"), BUSY, ids=range(len(BUSY)))
def test_who_wants_to_keep_us_busy_is_stopped(content: bytes, media_type: str) -> None:
    one = data(content, media_type)
    tracemalloc.start()
    try:
        assert refusal(one).code == "broken_image"
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_formats_none_leaves_the_size_to_be_judged() -> None:
    anything = b"neither a sound nor a document"
    assert judged(sound(anything, None), audio=Audio(formats=None)) == []
    assert judged(file(anything, "text/plain"), files=Files(formats=None)) == []
    error = refusal(sound(anything, None), audio=Audio(formats=None, max_bytes=9))
    assert error.code == "audio_too_large"
    assert refusal(file(anything), files=Files(formats=None, max_bytes=9)).code == "file_too_large"
