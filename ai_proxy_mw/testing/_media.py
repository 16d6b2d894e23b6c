"""/images and /audio."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator

from ai_proxy_mw.testing._answer import (
    Answer,
    binary_answer,
    event_stream,
    json_answer,
    text_answer,
)
from ai_proxy_mw.testing._call import CREATED, JSON, Call, Refusal
from ai_proxy_mw.testing._events import typed_event

_MP3_FRAME = b"\xff\xfb\x90\x00" + bytes(413)  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz, silent
_FRAMES_PER_PIECE = 8
_SAMPLE_RATE = 24_000


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _tiny_png() -> bytes:
    """One grey pixel."""
    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = zlib.compress(b"\x00\x80")
    signature = b"\x89PNG\r\n\x1a\n"
    chunks = ((b"IHDR", head), (b"IDAT", pixel), (b"IEND", b""))
    return signature + b"".join(_png_chunk(kind, data) for kind, data in chunks)


PNG = _tiny_png()


def generate_image(call: Call) -> Answer:
    call.required("prompt")
    return _images(call.number("n", default=1, most=10), call.data.get("response_format"))


def change_image(call: Call) -> Answer:
    """Edits and variations, which come as multipart."""
    if not call.multipart:
        raise Refusal("Upload the image as multipart/form-data.", param="image")
    count = call.form.get("n", "1")
    known = count in ("2", "3", "4", "5", "6", "7", "8", "9", "10")
    return _images(int(count) if known else 1, call.form.get("response_format"))


def _images(count: int, form: object) -> Answer:
    image = {"b64_json": base64.b64encode(PNG).decode()}
    if form == "url":
        image = {"url": "http://fake.invalid/image.png"}
    usage = {
        "input_tokens": 1,
        "input_tokens_details": {"text_tokens": 1, "image_tokens": 0},
        "output_tokens": 1,
        "total_tokens": 2,
    }
    return json_answer({"created": CREATED, "data": [image] * count, "usage": usage})


def speak(call: Call) -> Answer:
    """Silence, the longer the more there is to say."""
    call.required("model")
    seconds = 1 + len(call.required("input")) // 20
    form = call.data.get("response_format", "mp3")
    if form == "mp3":
        piece = _MP3_FRAME * _FRAMES_PER_PIECE
        return binary_answer(b"audio/mpeg", [piece] * (seconds * 5))
    silence = [bytes(_SAMPLE_RATE // 5 * 2)] * (seconds * 5)
    if form == "pcm":
        return binary_answer(b"audio/pcm", silence)
    if form == "wav":
        return binary_answer(b"audio/wav", [_wav_head(seconds), *silence])
    raise Refusal("The fake speaks mp3, wav and pcm.", param="response_format")


def _wav_head(seconds: int) -> bytes:
    size = seconds * _SAMPLE_RATE * 2
    layout = struct.pack("<IHHIIHH", 16, 1, 1, _SAMPLE_RATE, _SAMPLE_RATE * 2, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", size + 36)
        + b"WAVEfmt "
        + layout
        + b"data"
        + struct.pack("<I", size)
    )


def transcribe(call: Call) -> Answer:
    """Says how many bytes came."""
    if not call.multipart:
        raise Refusal("Upload the audio as multipart/form-data.", param="file")
    text = f"{call.size} bytes received"
    if call.form.get("stream") == "true":
        return event_stream(_transcript_events(text))
    form = call.form.get("response_format", "json")
    if form == "text":
        return text_answer(text + "\n")
    if form == "srt":
        return text_answer(f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n")
    if form == "vtt":
        return text_answer(f"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{text}\n\n")
    return json_answer({"text": text, **(_details() if form == "verbose_json" else {})})


def _details() -> JSON:
    return {"task": "transcribe", "language": "english", "duration": 1.0, "segments": []}


def _transcript_events(text: str) -> Iterator[bytes]:
    for index, word in enumerate(text.split()):
        delta = word if index == 0 else f" {word}"
        yield typed_event({"type": "transcript.text.delta", "delta": delta})
    yield typed_event({"type": "transcript.text.done", "text": text})
