"""Uploads as they are judged: what passes, and what each wrong one is told."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw._media import Audio, Images
from ai_proxy_mw.schema.boundaries import boundary_of
from ai_proxy_mw.schema.multipart import MOST_HEADERS, MOST_PARTS, Scanner
from ai_proxy_mw.schema.part_bodies import OnField
from ai_proxy_mw.schema.sniffing.kind import HEAD
from ai_proxy_mw.schema.upload_rules import upload_rules

KIB = 1024
AUDIO = Audio(max_bytes=64 * KIB)
IMAGES = Images(max_bytes=32 * KIB, max_total_bytes=64 * KIB)
RULES = upload_rules(AUDIO, IMAGES)

SPEECH = "POST /audio/transcriptions"
TRANSLATION = "POST /audio/translations"
EDIT = "POST /images/edits"
VARIATION = "POST /images/variations"
FILES = "POST /files"
PARTS = "POST /uploads/{id}/parts"

TYPE = "multipart/form-data; boundary=line"
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(16)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
JPEG = b"\xff\xd8\xff\xe0" + bytes(16)
GIF = b"GIF89a" + bytes(16)

END = b"--line--\r\n"


def part(headers: str | bytes, content: bytes = b"x") -> bytes:
    raw = headers.encode() if isinstance(headers, str) else headers
    return b"--line\r\n" + raw + b"\r\n\r\n" + content + b"\r\n"


def text(name: str, value: str | bytes) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return part(f'Content-Disposition: form-data; name="{name}"', content)


def file(name: str = "file", content: bytes = WAV, filename: str = "a.wav") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
    return part(head + "\r\nContent-Type: application/octet-stream", content)


def named(disposition: str) -> bytes:
    """A sound under another disposition."""
    return MODEL + part(f"Content-Disposition: {disposition}", WAV) + END


def headed(headers: str | bytes) -> bytes:
    """A good sound, and a part of these headers."""
    return SOUND + part(headers) + END


MODEL = text("model", "whisper-1")
SOUND = MODEL + file()
PURPOSE = text("purpose", "user_data")
PROMPT = text("prompt", "A cat")
PICTURE = file("image", PNG, "a.png")


def scan(
    body: bytes,
    endpoint: str = SPEECH,
    content_type: str = TYPE,
    *cuts: int,
    on_field: OnField | None = None,
) -> None:
    scanner = Scanner(content_type, RULES[endpoint], on_field)
    borders = [0, *cuts, len(body)]
    for start, end in pairwise(borders):
        scanner.feed(body[start:end])
    scanner.finish()
    scanner.finish()


def verdict(*arguments: object) -> tuple[str | None, str] | None:
    try:
        scan(*arguments)  # type: ignore[arg-type]
    except InvalidRequest as error:
        return error.param, error.code
    return None


GOOD = {
    "sound": (SPEECH, SOUND + END),
    "file first": (SPEECH, file() + MODEL + END),
    "line break in front": (SPEECH, b"\r\n" + SOUND + END),
    "no line break behind": (SPEECH, SOUND + b"--line--"),
    "all fields": (
        SPEECH,
        SOUND
        + text("language", "en")
        + text("prompt", "Grüße")
        + text("response_format", "verbose_json")
        + text("temperature", "0.25")
        + text("stream", "true")
        + text("timestamp_granularities[]", "word")
        + text("timestamp_granularities[]", "segment")
        + text("include[]", "logprobs")
        + text("chunking_strategy[type]", "server_vad")
        + END,
    ),
    "unknown fields, twice": (SPEECH, SOUND + text("new", "1") * 2 + text("é", b"\xff") + END),
    "unknown file": (SPEECH, SOUND + file("new", b"", "x.bin") + END),
    "unknown word": (SPEECH, SOUND + text("response_format", "brand_new-1.0") + END),
    "boundary inside a line": (SPEECH, MODEL + file(content=WAV + b"--line--line--") + END),
    "much like a boundary": (SPEECH, MODEL + file(content=WAV + b"\r\n--lin\r\n-\r\n--") + END),
    "line breaks in the file": (SPEECH, MODEL + file(content=WAV + b"\r\n\r\n\n\r") + END),
    "large": (SPEECH, MODEL + file(content=WAV + bytes(32 * KIB)) + END),
    "translation": (TRANSLATION, SOUND + END),
    "unquoted names": (SPEECH, named("form-data;name=file;filename=a.wav")),
    "capitals": (SPEECH, named('FORM-DATA; Name="file"; FileName="a.wav"')),
    "both filenames": (SPEECH, named("form-data; name=file; filename=a; filename*=UTF-8''a")),
    "escaped quote": (SPEECH, named('form-data; name="file"; filename="a%22b.wav"')),
    "encodings": (
        SPEECH,
        headed("Content-Disposition: form-data; name=x\r\nContent-Transfer-Encoding: Binary"),
    ),
    "charset": (
        SPEECH,
        headed("Content-Disposition: form-data; name=x\r\nContent-Type: text/plain; charset=UTF-8"),
    ),
    "other headers": (SPEECH, headed("X: y\r\nContent-Disposition: form-data; name=x\r\nZ:\tz ")),
    "edit": (EDIT, PICTURE + PROMPT + file("mask", PNG, "m.png") + text("n", "10") + END),
    "edit of many": (EDIT, PROMPT + file("image[]", JPEG, "a.jpg") * 16 + END),
    "edit of one in a list": (EDIT, PROMPT + file("image[]", PNG, "a.png") + END),
    "variation": (VARIATION, PICTURE + text("size", "256x256") + END),
    "file": (FILES, file(content=b"{}", filename="a.jsonl") + PURPOSE + END),
    "file that expires": (
        FILES,
        file()
        + PURPOSE
        + text("expires_after[anchor]", "created_at")
        + text("expires_after[seconds]", "3600")
        + END,
    ),
    "part of an upload": (PARTS, file("data", b"\0") + END),
    "most parts": (FILES, file() + PURPOSE + text("x", "") * (MOST_PARTS - 2) + END),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_good_upload_passes(case: str) -> None:
    endpoint, body = GOOD[case]
    assert verdict(body, endpoint) is None


BAD = "invalid_multipart"
NAME = "invalid_filename"
VALUE = "invalid_value"
MISSING = "missing_required_parameter"
TWICE = "duplicate_parameter"

# What is wrong, the endpoint, the body, and then `param` and `code` of the answer.
WRONG: dict[str, tuple[str, bytes, str | None, str]] = {
    # -- the lines between the parts
    "empty": (SPEECH, b"", None, BAD),
    "a line break": (SPEECH, b"\r\n", None, BAD),
    "nothing but an end": (SPEECH, b"--line--\r\n", "file", MISSING),
    "text in front": (SPEECH, b"x\r\n" + SOUND + END, None, BAD),
    "spaces in front": (SPEECH, b"  " + SOUND + END, None, BAD),
    "two line breaks in front": (SPEECH, b"\r\n\r\n" + SOUND + END, None, BAD),
    "lone line feed in front": (SPEECH, b"\n" + SOUND + END, None, BAD),
    "another boundary": (SPEECH, SOUND.replace(b"--line", b"--lime") + END, None, BAD),
    "no last boundary": (SPEECH, SOUND, None, BAD),
    "cut in the file": (SPEECH, SOUND[:-20], None, BAD),
    "cut in a header": (SPEECH, SOUND + b"--line\r\nContent-Dis", None, BAD),
    "half a last boundary": (SPEECH, SOUND + b"--line-", None, BAD),
    "text behind": (SPEECH, SOUND + END + b"x", None, BAD),
    "a part behind": (SPEECH, SOUND + END + MODEL, None, BAD),
    "a second end": (SPEECH, SOUND + END + END, None, BAD),
    "lone line feed behind": (SPEECH, SOUND + b"--line--\n", None, BAD),
    "three dashes": (SPEECH, SOUND + b"--line---", None, BAD),
    "line feed after a boundary": (SPEECH, SOUND + b"--line\nA: b\n\nx\n" + END, None, BAD),
    "space after a boundary": (SPEECH, SOUND + b"--line \r\n" + END, None, BAD),
    "tab after a boundary": (SPEECH, SOUND + b"--line\t\r\n" + END, None, BAD),
    "letter after a boundary": (SPEECH, SOUND + b"--lines\r\n" + END, None, BAD),
    "one dash after a boundary": (SPEECH, SOUND + b"--line-x\r\n" + END, None, BAD),
    "line feed before a boundary": (SPEECH, MODEL + file(content=WAV + b"\n--line\r\n"), None, BAD),
    "return before a boundary": (SPEECH, MODEL + file(content=WAV + b"\r--line\r\n"), None, BAD),
    "boundary right after headers": (
        SPEECH,
        MODEL
        + file(content=WAV)
        + b"--line\r\nContent-Disposition: form-data; name=x\r\n\r\n"
        + END,
        None,
        BAD,
    ),
    "boundary among headers": (SPEECH, SOUND + b"--line\r\n--line\r\n\r\nx\r\n" + END, None, BAD),
    "10,000 parts": (
        FILES,
        file() + PURPOSE + text("x", "") * 10_000 + END,
        None,
        "too_many_parts",
    ),
    "one part too many": (FILES, file() + text("x", "") * MOST_PARTS + END, None, "too_many_parts"),
    # -- headers
    "no headers": (SPEECH, SOUND + b"--line\r\n\r\nx\r\n" + END, None, BAD),
    "no disposition": (SPEECH, headed("Content-Type: text/plain"), None, BAD),
    "two dispositions": (
        SPEECH,
        headed("Content-Disposition: form-data; name=x\r\ncontent-disposition: form-data; name=y"),
        None,
        BAD,
    ),
    "attachment": (SPEECH, headed('Content-Disposition: attachment; name="x"'), None, BAD),
    "form-data2": (SPEECH, headed('Content-Disposition: form-data2; name="x"'), None, BAD),
    "no name": (SPEECH, headed("Content-Disposition: form-data"), None, BAD),
    "empty name": (SPEECH, headed('Content-Disposition: form-data; name=""'), None, BAD),
    "two names": (SPEECH, headed("Content-Disposition: form-data; name=x; name=y"), None, BAD),
    "name*": (SPEECH, headed("Content-Disposition: form-data; name*=utf-8''model"), None, BAD),
    "name*0": (SPEECH, headed("Content-Disposition: form-data; name*0=mo; name*1=del"), None, BAD),
    "open quote": (SPEECH, headed('Content-Disposition: form-data; name="model'), None, BAD),
    "text after a quote": (SPEECH, headed('Content-Disposition: form-data; name="x"y'), None, BAD),
    "backslash in a name": (
        SPEECH,
        headed(r'Content-Disposition: form-data; name="\x"'),
        None,
        BAD,
    ),
    "line break in a name": (
        SPEECH,
        headed("Content-Disposition: form-data; name=a%0d"),
        None,
        BAD,
    ),
    "space before the colon": (
        SPEECH,
        headed("Content-Disposition : form-data; name=x"),
        None,
        BAD,
    ),
    "folded header": (SPEECH, headed("Content-Disposition: form-data;\r\n name=x"), None, BAD),
    "line feed in a header": (
        SPEECH,
        headed("Content-Disposition: form-data; name=x\nContent-Type: text/plain"),
        None,
        BAD,
    ),
    "line feeds only": (SPEECH, SOUND + b"--line\r\nA: b\n\nx\r\n" + END, None, BAD),
    "NUL in a header": (SPEECH, headed('Content-Disposition: form-data; name="x\0"'), None, BAD),
    "header without a colon": (SPEECH, headed("Content-Disposition"), None, BAD),
    "header without a name": (SPEECH, headed(": x"), None, BAD),
    "header in Latin-1": (
        SPEECH,
        headed(b'Content-Disposition: form-data; name="\xe9"'),
        None,
        BAD,
    ),
    "too many headers": (SPEECH, headed("\r\n".join(["X: y"] * (MOST_HEADERS + 1))), None, BAD),
    "too long a header": (SPEECH, headed("X: " + "y" * 5000), None, BAD),
    "too long a header's name": (SPEECH, headed("X" * 5000 + ": y"), None, BAD),
    "header that never ends": (SPEECH, SOUND + b"--line\r\nX: " + b"y" * 10**6, None, BAD),
    "base64": (
        SPEECH,
        headed("Content-Disposition: form-data; name=x\r\nContent-Transfer-Encoding: base64"),
        "x",
        BAD,
    ),
    "quoted-printable": (
        SPEECH,
        headed(
            "Content-Disposition: form-data; name=x\r\nContent-Transfer-Encoding: quoted-printable"
        ),
        "x",
        BAD,
    ),
    "nested multipart": (
        SPEECH,
        headed(
            "Content-Disposition: form-data; name=x\r\nContent-Type: Multipart/mixed; boundary=b"
        ),
        "x",
        BAD,
    ),
    "other charset": (
        SPEECH,
        headed(
            'Content-Disposition: form-data; name=x\r\nContent-Type: text/plain; charset="utf-16"'
        ),
        "x",
        BAD,
    ),
    "default charset": (SPEECH, SOUND + text("_charset_", "utf-16") + END, "_charset_", BAD),
    # -- names of files
    "no filename": (SPEECH, named("form-data; name=file"), "file", NAME),
    "empty filename": (SPEECH, named('form-data; name=file; filename=""'), "file", NAME),
    "dots": (SPEECH, named("form-data; name=file; filename=.."), "file", NAME),
    "slash": (SPEECH, named('form-data; name=file; filename="../a.wav"'), "file", NAME),
    "backslash": (SPEECH, named(r'form-data; name=file; filename="c:\a.wav"'), "file", NAME),
    "escaped quote by a backslash": (
        SPEECH,
        named(r'form-data; name=file; filename="a\".w"'),
        "file",
        NAME,
    ),
    "escaped line break": (SPEECH, named('form-data; name=file; filename="a%0Ab"'), "file", NAME),
    "control character": (SPEECH, named('form-data; name=file; filename="a\x85b"'), "file", NAME),
    "long filename": (SPEECH, named(f"form-data; name=file; filename={'a' * 256}"), "file", NAME),
    "filenames disagree": (
        SPEECH,
        named("form-data; name=file; filename=a.wav; filename*=UTF-8''b.wav"),
        "file",
        NAME,
    ),
    "filename* alone": (
        SPEECH,
        named("form-data; name=file; filename*=UTF-8''a.wav"),
        "file",
        NAME,
    ),
    "filename* of no UTF-8": (
        SPEECH,
        named("form-data; name=file; filename=a; filename*=UTF-8''%ff"),
        "file",
        NAME,
    ),
    "filename* in Latin-1": (
        SPEECH,
        named("form-data; name=file; filename=a; filename*=iso-8859-1''a"),
        "file",
        NAME,
    ),
    "filename*0": (SPEECH, named("form-data; name=file; filename=a; filename*0=b"), None, BAD),
    "two filenames": (SPEECH, named("form-data; name=file; filename=a; filename=b"), None, BAD),
    "bad filename of an unknown file": (SPEECH, SOUND + file("x", filename="a/b") + END, "x", NAME),
    # -- what is there, and how often
    "no file": (SPEECH, MODEL + END, "file", MISSING),
    "no model": (SPEECH, file() + END, "model", MISSING),
    "no model to translate with": (TRANSLATION, file() + END, "model", MISSING),
    "no image": (EDIT, PROMPT + END, "image", MISSING),
    "no prompt": (EDIT, PICTURE + END, "prompt", MISSING),
    "no image to vary": (VARIATION, text("n", "1") + END, "image", MISSING),
    "no purpose": (FILES, file() + END, "purpose", MISSING),
    "no file to keep": (FILES, PURPOSE + END, "file", MISSING),
    "no data": (PARTS, file() + END, "data", MISSING),
    "two files": (SPEECH, SOUND + file() + END, "file", TWICE),
    "two models": (SPEECH, SOUND + MODEL + END, "model", TWICE),
    "two purposes": (FILES, PURPOSE + file() + PURPOSE + END, "purpose", TWICE),
    "two masks": (EDIT, PICTURE + PROMPT + file("mask", PNG) * 2 + END, "mask", TWICE),
    "two images of one name": (EDIT, PICTURE * 2 + PROMPT + END, "image", TWICE),
    "an image and a list": (EDIT, PICTURE + file("image[]", PNG) + PROMPT + END, "image", TWICE),
    "a list and an image": (EDIT, file("image[]", PNG) + PICTURE + PROMPT + END, "image", TWICE),
    "17 images": (EDIT, file("image[]", PNG) * 17 + PROMPT + END, "image", "too_many_parts"),
    "Model": (SPEECH, SOUND + text("Model", "gpt") + END, "model", VALUE),
    "model with a space": (SPEECH, SOUND + text("model ", "gpt") + END, "model", VALUE),
    "model[]": (SPEECH, SOUND + text("model[]", "gpt") + END, "model", VALUE),
    "model[0]": (SPEECH, SOUND + text("model[0]", "gpt") + END, "model", VALUE),
    "image[0]": (EDIT, PICTURE + file("image[0]", PNG) + PROMPT + END, "image", VALUE),
    "file[]": (FILES, PURPOSE + file("file[]") + END, "file", VALUE),
    "Svg[Model]": (EDIT, PICTURE + PROMPT + text("Svg[Model]", "x") + END, "svg[model]", VALUE),
    # -- values
    "model as a file": (SPEECH, file("model", b"whisper-1") + file() + END, "model", VALUE),
    "empty model": (SPEECH, text("model", "") + file() + END, "model", VALUE),
    "model of two words": (SPEECH, text("model", "a b") + file() + END, "model", VALUE),
    "model with a line break": (SPEECH, text("model", "a\r\n") + file() + END, "model", VALUE),
    "model of no UTF-8": (SPEECH, text("model", b"\xff") + file() + END, "model", VALUE),
    "long model": (SPEECH, text("model", "m" * 257) + file() + END, "model", VALUE),
    "empty prompt": (EDIT, PICTURE + text("prompt", "") + END, "prompt", VALUE),
    "long prompt": (EDIT, text("prompt", "p" * (128 * KIB + 1)) + PICTURE + END, "prompt", VALUE),
    "temperature of 2": (SPEECH, SOUND + text("temperature", "2") + END, "temperature", VALUE),
    "temperature below 0": (
        SPEECH,
        SOUND + text("temperature", "-0.1") + END,
        "temperature",
        VALUE,
    ),
    "temperature of words": (
        SPEECH,
        SOUND + text("temperature", "warm") + END,
        "temperature",
        VALUE,
    ),
    "temperature nan": (SPEECH, SOUND + text("temperature", "nan") + END, "temperature", VALUE),
    "n of 0": (EDIT, PICTURE + PROMPT + text("n", "0") + END, "n", VALUE),
    "n of 11": (EDIT, PICTURE + PROMPT + text("n", "11") + END, "n", VALUE),
    "n of a half": (VARIATION, PICTURE + text("n", "1.5") + END, "n", VALUE),
    "n in other digits": (VARIATION, PICTURE + text("n", "\u0663") + END, "n", VALUE),
    "partial images": (EDIT, text("partial_images", "4") + END, "partial_images", VALUE),
    "compression": (EDIT, text("output_compression", "101") + END, "output_compression", VALUE),
    "stream": (SPEECH, SOUND + text("stream", "yes") + END, "stream", VALUE),
    "language": (SPEECH, SOUND + text("language", "") + END, "language", VALUE),
    "granularity": (
        SPEECH,
        SOUND + text("timestamp_granularities[]", "a word") + END,
        "timestamp_granularities",
        VALUE,
    ),
    "purpose of two words": (FILES, file() + text("purpose", "user data") + END, "purpose", VALUE),
    "expires too soon": (
        FILES,
        file() + PURPOSE + text("expires_after[seconds]", "60") + END,
        "expires_after[seconds]",
        VALUE,
    ),
    # -- files
    "empty sound": (SPEECH, MODEL + file(content=b"") + END, "file", VALUE),
    "empty data": (PARTS, file("data", b"") + END, "data", VALUE),
    "text as sound": (
        SPEECH,
        MODEL + file(content=b"hello") + END,
        "file",
        "unsupported_audio_format",
    ),
    "picture as sound": (
        SPEECH,
        MODEL + file(content=PNG + bytes(KIB)) + END,
        "file",
        "unsupported_audio_format",
    ),
    "sound as picture": (
        EDIT,
        file("image", WAV) + PROMPT + END,
        "image",
        "unsupported_image_format",
    ),
    "gif to edit": (EDIT, PROMPT + file("image", GIF) + END, "image", "unsupported_image_format"),
    "gif in a list": (
        EDIT,
        file("image[]", PNG) + file("image[]", GIF) + END,
        "image",
        "unsupported_image_format",
    ),
    "jpeg mask": (EDIT, PICTURE + file("mask", JPEG) + END, "mask", "unsupported_image_format"),
    "jpeg to vary": (VARIATION, file("image", JPEG) + END, "image", "unsupported_image_format"),
    "large sound": (
        SPEECH,
        MODEL + file(content=WAV + bytes(64 * KIB)) + END,
        "file",
        "file_too_large",
    ),
    "large picture": (
        EDIT,
        file("image", PNG + bytes(32 * KIB)) + PROMPT + END,
        "image",
        "file_too_large",
    ),
    "large pictures": (
        EDIT,
        file("image[]", PNG + bytes(30 * KIB)) * 3 + PROMPT + END,
        "image",
        "file_too_large",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_upload_is_told_what_is_wrong(case: str) -> None:
    endpoint, body, param, code = WRONG[case]
    assert verdict(body, endpoint) == (param, code)


SHORT = [case for case, (_, body, _, _) in WRONG.items() if len(body) < 2 * KIB]


@pytest.mark.parametrize("case", SHORT)
def test_a_wrong_upload_is_told_the_same_in_whatever_pieces_it_comes(case: str) -> None:
    endpoint, body, param, code = WRONG[case]
    for step in (1, 2, 7, 61):
        assert verdict(body, endpoint, TYPE, *range(step, len(body), step)) == (param, code)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in GOOD if len(GOOD[case][1]) < 4 * KIB])
def test_a_good_upload_passes_in_whatever_pieces_it_comes(case: str) -> None:
    endpoint, body = GOOD[case]
    for cut in range(1, len(body), 1 if len(body) < KIB else 7):
        assert verdict(body, endpoint, TYPE, cut) is None, cut
    assert verdict(body, endpoint, TYPE, *range(1, len(body))) is None


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data;",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data boundary=line",
        "multipart/mixed; boundary=line",
        "multipart/form-data; boundary=line; boundary=line",
        "multipart/form-data; boundary=line; Boundary=other",
        "multipart/form-data; boundary=line, multipart/form-data; boundary=other",
        "multipart/form-data; boundary*=utf-8''line",
        "multipart/form-data; boundary*0=li; boundary*1=ne",
        f"multipart/form-data; boundary={'b' * 71}",
        'multipart/form-data; boundary="line "',
        'multipart/form-data; boundary="li\\ne"',
        'multipart/form-data; boundary="li\nne"',
        'multipart/form-data; boundary="line',
        "multipart/form-data; boundary=li#ne",
        "multipart/form-data; boundary=lin\u00e9",
        "multipart/form-data; charset=utf-16; boundary=line",
    ],
)
def test_a_boundary_that_is_none_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        boundary_of(content_type)
    assert (caught.value.param, caught.value.code) == (None, BAD)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=line", b"line"),
        ("Multipart/Form-Data;BOUNDARY=line", b"line"),
        ('multipart/form-data; boundary="a b:c"; charset=UTF-8', b"a b:c"),
        (f"multipart/form-data; boundary={'b' * 70}", b"b" * 70),
        ("multipart/form-data; boundary=----WebKitFormBoundaryx", b"----WebKitFormBoundaryx"),
        ("multipart/form-data; type=x; boundary=line", b"line"),
    ],
)
def test_a_boundary_is_found(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


def test_fields_are_told_as_they_come() -> None:
    told: list[tuple[str, str]] = []
    scan(
        SOUND + text("temperature", "0") + text("prompt", "secret") + text("x", "y") + END,
        on_field=lambda name, value: told.append((name, value)),
    )
    assert told == [("model", "whisper-1"), ("temperature", "0")]


def test_what_the_teller_raises_ends_the_upload_even_behind_the_file() -> None:
    def refuse(name: str, value: str) -> None:
        raise InvalidRequest(f"not {value}", param=name, code="model_not_allowed")

    scanner = Scanner(TYPE, RULES[SPEECH], refuse)
    scanner.feed(file())
    with pytest.raises(InvalidRequest, match="not whisper-1"):
        scanner.feed(MODEL + END)


def test_a_sound_may_be_opus_where_ogg_is_allowed() -> None:
    opus = b"OggS" + bytes(22) + b"\x01\x13OpusHead" + bytes(HEAD)
    rules = upload_rules(Audio(formats=["ogg"]), IMAGES)[SPEECH]
    scanner = Scanner(TYPE, rules)
    scanner.feed(MODEL + file(content=opus) + END)
    scanner.finish()
    scanner = Scanner(TYPE, upload_rules(Audio(formats=["mp3"]), IMAGES)[SPEECH])
    with pytest.raises(InvalidRequest, match="of the kind opus; send mp3"):
        scanner.feed(MODEL + file(content=opus) + END)


def test_nothing_of_a_wrong_upload_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert verdict(headed("A b: c")) == (None, BAD)
    assert caplog.records == []


pieces = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [
                b"--line",
                b"\r\n",
                b"\r",
                b"\n",
                b"--",
                b"-",
                b"line",
                MODEL,
                file(),
                END,
                b": ",
                b";",
            ]
        ),
        st.sampled_from([b"Content-Disposition", b"form-data", b"name=", b"filename=", b'"', b"*"]),
    ),
    max_size=12,
)


@given(pieces, st.booleans())
def test_whatever_comes_is_judged_and_not_held(written: list[bytes], opened: bool) -> None:
    scanner = Scanner(TYPE, RULES[SPEECH])
    if opened:
        scanner.feed(b"--line\r\n")
    try:
        for piece in written:
            scanner.feed(piece)
        scanner.finish()
    except InvalidRequest:
        pass


@given(pieces)
def test_the_pieces_make_no_difference(written: list[bytes]) -> None:
    body = b"--line\r\n" + b"".join(written)
    assert verdict(body) == verdict(body, SPEECH, TYPE, *range(1, len(body)))


@given(st.lists(st.binary(max_size=200)), st.integers(1, 70))
def test_any_bytes_may_be_a_file(content: list[bytes], step: int) -> None:
    data = b"".join(content)
    form, content_type = encode_multipart_formdata(
        {"purpose": "user_data", "file": ("a.bin", data or b"\0")}
    )
    assert verdict(form, FILES, content_type, *range(step, len(form), step)) is None


def _encoded(data: dict[str, str], files: list[tuple[str, tuple[str, bytes]]]) -> tuple[bytes, str]:
    request = httpx.Request("POST", "http://x", data=data, files=files)
    return request.read(), request.headers["content-type"]


def test_what_httpx_sends_passes() -> None:
    files = [("file", ('Grüße "1" 100%.wav', WAV))]
    body, content_type = _encoded({"model": "whisper-1", "language": "de"}, files)
    assert verdict(body, SPEECH, content_type) is None


def test_what_requests_sends_passes() -> None:
    body, content_type = encode_multipart_formdata(  # which is what it builds uploads with
        {"model": "whisper-1", "file": ("ein Gruß.wav", WAV, "audio/wav")}
    )
    assert verdict(body, SPEECH, content_type) is None


def _taken_by(scanner: Scanner, piece: bytes) -> tuple[int, int]:
    """The bytes that are held behind 500 such pieces, and the most of them on the way."""
    tracemalloc.start()
    try:
        for _ in range(500):
            scanner.feed(piece)
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def test_no_more_than_the_head_of_a_file_is_held() -> None:
    scanner = Scanner(TYPE, upload_rules(Audio(max_bytes=1 << 30), IMAGES)[SPEECH])
    scanner.feed(MODEL + b"--line\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n")
    scanner.feed(WAV)
    piece = b"\r\n--lin" * (8 * KIB)
    # Threads that other tests have left may take some meanwhile: the least of three counts.
    held, peak = min(_taken_by(scanner, piece) for _ in range(3))
    assert held < 8 * KIB
    assert peak < 3 * len(piece)
