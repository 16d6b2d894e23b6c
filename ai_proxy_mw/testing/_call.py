"""A request as the fake's answers look at it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, Protocol

import msgspec

from ai_proxy_mw._http import Headers

JSON = dict[str, Any]

CREATED = 1_750_000_000
"""The hour at which everything the fake makes was made, so that answers repeat."""

_FIELD = re.compile(rb'name="([^"]*)"(?:; filename="([^"]*)")?[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n')


class Traits(Protocol):
    """What can be set on a FakeUpstream and shapes its answers."""

    pace: float
    words: Sequence[str] | None
    models: Sequence[str]
    download_bytes: int
    compress: Literal["gzip", "always"] | None
    keep_body: int
    stream_options: bool


class Refusal(Exception):
    """The request cannot be answered; becomes the provider's error object."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.code = code
        self.param = param


class Call:
    """One request whose body has come.

    `path` is what follows the base path, `id` the part of it that names an object. `body` is all
    of a JSON body and the beginning of any other; `size` counts the whole.
    """

    id = ""

    def __init__(
        self,
        *,
        method: str,
        path: str,
        query: str,
        headers: Headers,
        body: bytes,
        size: int,
        sha256: str,
        traits: Traits,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.size = size
        self.sha256 = sha256
        self.traits = traits

    @cached_property
    def key(self) -> str:
        """24 hexadecimal digits that are the same for the same request."""
        # SDKs make up a multipart boundary per call, so such a body is known by what it holds.
        what: Any = [self.size, sorted(self.form.items())] if self.multipart else self.sha256
        told = f"{self.method} {self.path}?{self.query} {what}"
        return hashlib.blake2b(told.encode(), digest_size=12).hexdigest()

    @cached_property
    def multipart(self) -> bool:
        return (self.headers.get("content-type") or "").startswith("multipart/form-data")

    @cached_property
    def data(self) -> JSON:
        """The body as a JSON object."""
        if self.size > len(self.body):
            raise Refusal("The request body is too large.", status=413)
        try:
            data = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(f"We could not parse the JSON body of your request: {error}") from None
        if not isinstance(data, dict):
            raise Refusal("The JSON body of your request must be an object.")
        return data

    @cached_property
    def form(self) -> dict[str, str]:
        """The short fields at the beginning of a multipart body; a file's value is its name."""
        found = {}
        for field in _FIELD.finditer(self.body):
            name, value = field.groups()
            if value is None:
                value = self.body[field.end() :].split(b"\r\n", 1)[0]
            found[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        return found

    @property
    def file_size(self) -> int:
        """The size of the file in a multipart body that has it as its last part, as SDKs do."""
        starts = [field.end() for field in _FIELD.finditer(self.body) if field.group(2) is not None]
        if not starts:
            return 0
        first_line = self.body.split(b"\r\n", 1)[0]
        return self.size - starts[-1] - len(first_line) - len(b"\r\n--\r\n")

    def required(self, name: str, kind: type | tuple[type, ...] = str) -> Any:
        """A field that the endpoint cannot do without."""
        value = self.data.get(name)
        if value is None:
            raise Refusal(
                f"Missing required parameter: '{name}'.",
                code="missing_required_parameter",
                param=name,
            )
        if not isinstance(value, kind):
            raise Refusal(f"Invalid type for '{name}'.", code="invalid_type", param=name)
        return value

    def number(self, *names: str, default: int, most: int = 100_000) -> int:
        """The first of these fields that is a count from 1 to `most`."""
        for name in names:
            value = self.data.get(name)
            if type(value) is int and 0 < value <= most:
                return value
        return default
