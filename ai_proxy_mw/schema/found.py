"""Pictures, sounds and files as they are found in a body, on their way to being judged."""

from __future__ import annotations

from typing import NamedTuple

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.base64text import BadBase64, Base64Text
from ai_proxy_mw.schema.data_url import BadDataUrl, DataUrl, read_data_url
from ai_proxy_mw.schema.link import BadLink, read_link
from ai_proxy_mw.schema.spec import MediaKind


class Found(NamedTuple):
    """One of them.

    kind: what may stand there:
        `image`: a data URL, or an http(s) address (OpenAI's `image_url`);
        `image_data`: Base64 text (Anthropic's `source.data`);
        `image_link`: an http(s) address (Anthropic's `source.url`);
        `audio`: Base64 text, or a data URL (`input_audio.data`);
        `file`: Base64 text, or a data URL (`file_data`);
        `file_link`: an http(s) address (`file_url`).
    param: where it stands, like `messages[2].content[0].image_url.url`.
    value: the inside of the JSON string as it stands in the body, with its escapes; a part of the
        body (a memoryview) does, and nothing of it is copied but what is looked at.
    declared: what it is said to be beside the data: a media type, of `audio` a format. Of a data
        URL, what stands in it is enough.
    """

    kind: MediaKind
    param: str
    value: bytes | memoryview
    declared: str | None = None


def base64_of(text: bytes | memoryview, thing: str, param: str) -> Base64Text:
    """Raises InvalidRequest (`invalid_base64`)."""
    try:
        return Base64Text(text)
    except BadBase64 as error:
        message = f"The Base64 text of the {thing} {error}."
        raise InvalidRequest(message, param=param, code="invalid_base64") from None


def data_url_of(found: Found, thing: str, code: str) -> DataUrl:
    """Raises InvalidRequest with that code."""
    try:
        return read_data_url(found.value)
    except BadDataUrl as error:
        message = f"The data URL of the {thing} {error}."
        raise InvalidRequest(message, param=found.param, code=code) from None


def link_of(found: Found, thing: str, code: str) -> str:
    """Raises InvalidRequest with that code."""
    try:
        return read_link(found.value)
    except BadLink as error:
        message = f"The address of the {thing} {error}."
        raise InvalidRequest(message, param=found.param, code=code) from None


def essence(media_type: str | None) -> str:
    """A media type in small letters and without its parameters; empty for none."""
    return (media_type or "").partition(";")[0].strip().lower()
