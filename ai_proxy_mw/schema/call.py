"""What a request asks of which model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ai_proxy_mw._errors import InvalidRequest, UnsupportedMediaType
from ai_proxy_mw.schema.doubles import refuse_doubles
from ai_proxy_mw.schema.members import KNOWN, MOST_VALUES, all_members, members

if TYPE_CHECKING:
    from ai_proxy_mw._http import Headers
    from ai_proxy_mw._types import RawHeaders
    from ai_proxy_mw.schema.found import Found
    from ai_proxy_mw.schema.pictures import Picture

T = TypeVar("T")

_NULL = msgspec.Raw(b"null")
_EMPTY = msgspec.Raw(b"[]")

_JSON = re.compile(rb'\s*application/json\s*(?:;\s*charset="?utf-?8"?\s*)?;?\s*', re.IGNORECASE)

JSON_ENDPOINTS = frozenset(
    {
        "POST /audio/speech",
        "POST /chat/completions",
        "POST /completions",
        "POST /embeddings",
        "POST /images/generations",
        "POST /messages",
        "POST /messages/count_tokens",
        "POST /moderations",
        "POST /responses",
    }
)
"""Endpoints whose body is a JSON object that names a model."""

_OF_NUMBERS = ("POST /completions", "POST /embeddings")
_MOST_NUMBERS = 1_000_000
"""Values in a body of tokens, which are small."""

# They run no model, whatever their body says.
_NO_MODEL = frozenset(
    {
        "POST /batches/{id}/cancel",
        "POST /chat/completions/{id}",
        "POST /files",
        "POST /responses/{id}/cancel",
        "POST /uploads",
        "POST /uploads/{id}/cancel",
        "POST /uploads/{id}/complete",
        "POST /uploads/{id}/parts",
    }
)

# Some upstreams take further models that may answer in the place of the first.
_OTHER_MODELS = ("models", "fallbacks")

# What may have a model of its own: some tools, such as the one that draws, and the drawing of SVG.
_CAPITALS = re.compile(rb'"(?!model")(?i:model)"[ \t\n\r]*:')
_MAY_NAME_ONE = re.compile(rb'"model"|\\u00[4567]')


_NAMING = frozenset({*_OTHER_MODELS, "tools", "svg"})


class _Part(msgspec.Struct):
    model: Any = None


class _Other(msgspec.Struct):
    """LiteLLM takes such in the place of a name, with further members of the call."""

    model: str


_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_flag = msgspec.json.Decoder(bool)
_others = msgspec.json.Decoder(list[str | _Other])
_part = msgspec.json.Decoder(_Part)
_parts = msgspec.json.Decoder(list[_Part])
_text = msgspec.json.Decoder(str)


class Call:
    """A JSON request, decoded as far as the corridor must know it.

    endpoint: as it is written in the allow-list.
    members: the members of the body that are looked at, each as it came.
    model: the model that is asked; after aliases, the one that the upstream knows.
    stream: whether the answer shall be a stream of events.
    media: the pictures, sounds and files in it, where it was judged.
    pictures: what is known of those of them that are pictures.

    A value: `replace` gives another call, and leaves this one as it is.
    """

    __slots__ = (
        "_body",
        "_changes",
        "endpoint",
        "media",
        "members",
        "model",
        "pictures",
        "stream",
    )

    def __init__(self, endpoint: str, body: bytes) -> None:
        self.endpoint = endpoint
        self.members = members(body, _MOST_NUMBERS if endpoint in _OF_NUMBERS else MOST_VALUES)
        self.media: Sequence[Found] = ()
        self.pictures: Sequence[Picture] = ()
        self._body = body
        self._changes: dict[str, Any] = {}
        self._read()

    @property
    def changed(self) -> bool:
        """Whether it says another thing than the body that came."""
        return bool(self._changes)

    @property
    def other_models(self) -> list[str]:
        """Models that may answer in the place of `model` or beside it, as some upstreams take them.

        Raises InvalidRequest where two decoders could read two models.
        """
        if self.members.keys().isdisjoint(_NAMING):
            return []
        named = [
            other if isinstance(other, str) else other.model
            for name in _OTHER_MODELS
            for other in self._once(name, _others) or []
        ]
        parts = [*(self._once("tools", _parts) or []), self._once("svg", _part)]
        return named + [str(each.model) for each in parts if each and each.model is not None]

    def _once(self, name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
        raw = self.members.get(name)
        if raw is not None:
            if _CAPITALS.search(memoryview(raw)):
                raise InvalidRequest(
                    f"Write 'model' in small letters in '{name}'.",
                    param=name,
                    code="duplicate_parameter",
                )
            if _MAY_NAME_ONE.search(memoryview(raw)):
                refuse_doubles(bytes(memoryview(raw)))
        return self._decoded(name, decoder)

    def get(self, name: str) -> Any:
        """A member of the body, decoded anew with each call; None if it is not there."""
        if name in self._changes:
            return msgspec.json.decode(msgspec.json.encode(self._changes[name]))
        if name in KNOWN:
            return self._decoded(name, _anything)
        return self._decode(all_members(self._body).get(name), name, _anything)

    def replace(self, **changes: Any) -> Call:
        """The call with some members of its body replaced or added."""
        other = copy(self)
        other._changes = {**self._changes, **changes}  # noqa: SLF001 - of its own kind
        encoded = {
            name: msgspec.Raw(msgspec.json.encode(value))
            for name, value in changes.items()
            if name in KNOWN
        }
        other.members = {**self.members, **encoded}
        other._read()  # noqa: SLF001
        return other

    def body(self) -> bytes:
        """The body as it goes upstream: that which came, where nothing was changed.

        Of what was changed only the members are written anew; the others stay as they came, to
        the last digit.
        """
        if not self._changes:
            return self._body
        found = dict(all_members(self._body))
        for name, value in self._changes.items():
            found[name] = msgspec.Raw(msgspec.json.encode(value))
        return msgspec.json.encode(found)

    def _read(self) -> None:
        self.model: str | None = self._decoded("model", _text)
        self.stream: bool = self._decoded("stream", _flag) or False

    def gives(self, name: str) -> bool:
        """Whether a member that is looked at is there, and is neither null nor an empty list."""
        raw = self.members.get(name)
        return raw is not None and raw not in (_NULL, _EMPTY)

    def _decoded(self, name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
        return self._decode(self.members.get(name), name, decoder)

    @staticmethod
    def _decode(raw: msgspec.Raw | None, name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
        if raw is None or raw == _NULL:
            return None
        try:
            return decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"{name}: {error}.", param=name, code="invalid_type") from None

    def __repr__(self) -> str:
        return f"Call({self.endpoint} model={self.model!r} stream={self.stream})"


def runs_a_model(endpoint: str) -> bool:
    """Whether calls of an endpoint may run a model; so it is for those that we do not know."""
    return endpoint.startswith(("POST ", "PUT ", "PATCH ")) and endpoint not in _NO_MODEL


def check_media(headers: RawHeaders) -> str:
    """The body's Content-Encoding; empty for none.

    Raises UnsupportedMediaType for a body that somebody may read as another thing than JSON.
    """
    types = []
    coding = ""
    for name, value in headers:
        if name == b"content-type":
            types.append(value)
        elif name == b"content-encoding":
            coding = f"{coding}, {value.decode('latin-1')}" if coding else value.decode("latin-1")
    if len(types) != 1 or not (types[0] == b"application/json" or _JSON.fullmatch(types[0])):
        raise UnsupportedMediaType(
            "Send the request body as Content-Type: application/json, in UTF-8."
        )
    return coding


def upload_type(headers: Headers) -> str:
    """The one `Content-Type` of an upload. Raises UnsupportedMediaType for other bodies."""
    for coding in headers.get_all("content-encoding"):
        if coding.strip().lower() != "identity":
            raise UnsupportedMediaType(
                "Send an upload without a Content-Encoding.", code="unsupported_content_encoding"
            )
    types = headers.get_all("content-type")
    if len(types) != 1 or not types[0].strip().lower().startswith("multipart/form-data"):
        raise UnsupportedMediaType("Send the request body as multipart/form-data.")
    return types[0]
