"""Uploads as bytes, for tests that send them by hand: a form whose last part is a file."""

from __future__ import annotations

CONTENT_TYPE = "multipart/form-data; boundary=between"
HEADERS = {"content-type": CONTENT_TYPE}
END = b"\r\n--between--\r\n"


def opening(**fields: str) -> bytes:
    """What stands in front of the bytes of the file."""
    part = "--between\r\nContent-Disposition: form-data; name="
    texts = [f'{part}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    return "".join([*texts, f'{part}"file"; filename="a.bin"\r\n\r\n']).encode()


def form(content: bytes, **fields: str) -> bytes:
    return opening(**fields) + content + END


def form_of(size: int, **fields: str) -> bytes:
    """A form of so many bytes."""
    return form(b"x" * (size - len(form(b"", **fields))), **fields)
