"""CORS as a value: which pages on other origins may call, and what they may read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from ai_proxy_mw._errors import ConfigurationError

ALL_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

# What the browser SDKs of OpenAI and Anthropic send. Firefox and Safari also announce the
# `user-agent` that these set, Chromium keeps its own.
DEFAULT_ALLOW_HEADERS = (
    "accept",
    "anthropic-*",
    "authorization",
    "cache-control",
    "content-type",
    "idempotency-key",
    "openai-*",
    "user-agent",
    "x-api-key",
    "x-client-request-id",
    "x-request-id",
    "x-stainless-*",
)

# Browsers know no prefixes here, so each name is written out.
DEFAULT_EXPOSE_HEADERS = (
    "age",
    "cache-status",
    "etag",
    "openai-processing-ms",
    "openai-version",
    "ratelimit",
    "ratelimit-policy",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-ai-proxy-attempts",
    "x-ai-proxy-model",
    "x-ai-proxy-upstream",
    "x-cache",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-request-id",
    "x-should-retry",
    "x-upstream-request-id",
)

# As browsers write an origin (RFC 6454, section 6.2). Apps in a shell have schemes of their own.
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_VISIBLE = re.compile(r"[!-~]+")
_METHOD = re.compile(r"[A-Z]+(?:-[A-Z]+)*")
_NAME = re.compile(r"[!#$%&'+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2, without our own *


@dataclass(frozen=True, kw_only=True, slots=True)
class CORS:
    """Which pages on other origins may call the proxy.

    allow_origins: origins as browsers send them, `https://app.example`; or `["*"]` for all.
    allow_origin_regex: a pattern that the whole of an origin matches. Never matches `null`.
    allow_methods: the methods, or `["*"]` for all; `HEAD` comes with `GET`.
    allow_headers: request headers; a `*` at the end stands for any rest.
    expose_headers: response headers that the page may read, besides those that all may.
    allow_credentials: whether the page may send cookies; not with `"*"`.
    max_age: seconds that a browser may remember the answer to a preflight; 0 for none.
    allow_private_network: whether pages of the public network may call into this private one.

    Raises ConfigurationError.
    """

    allow_origins: Collection[str] = ()
    allow_origin_regex: str | None = None
    allow_methods: Collection[str] = ("GET", "POST", "DELETE")
    allow_headers: Collection[str] = DEFAULT_ALLOW_HEADERS
    expose_headers: Collection[str] = DEFAULT_EXPOSE_HEADERS
    allow_credentials: bool = False
    max_age: int = 600
    allow_private_network: bool = False
    origin_pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("allow_origins", "allow_methods", "allow_headers", "expose_headers"):
            object.__setattr__(self, name, _words(name, getattr(self, name)))
        object.__setattr__(self, "origin_pattern", _compiled(self.allow_origin_regex))
        self._check_switches()
        self._check_origins()
        self._check_names()

    @property
    def any_origin(self) -> bool:
        """Whether every page may call, and the answer is the same for all."""
        return "*" in self.allow_origins

    def allows_origin(self, origin: str) -> bool:
        """Whether pages of this origin may call; `origin` as browsers send it."""
        if self.any_origin or origin in self.allow_origins:
            return True
        # What is echoed must be one word. `null` is any file and any sandboxed page, so that it
        # must have been written.
        if self.origin_pattern is None or origin == "null" or not _VISIBLE.fullmatch(origin):
            return False
        return self.origin_pattern.fullmatch(origin) is not None

    def _check_switches(self) -> None:
        for name in ("allow_credentials", "allow_private_network"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ConfigurationError(f"CORS({name}={value!r}): write True or False")
        if isinstance(self.max_age, bool) or not isinstance(self.max_age, int) or self.max_age < 0:
            raise ConfigurationError(
                f"CORS(max_age={self.max_age!r}): write whole seconds, 0 for none"
            )

    def _check_origins(self) -> None:
        if not self.allow_origins and not self.allow_origin_regex:
            raise ConfigurationError(
                "CORS(): nobody could call; write allow_origins=['https://app.example']"
            )
        if self.any_origin:
            if len(self.allow_origins) > 1 or self.allow_origin_regex is not None:
                raise ConfigurationError("CORS(allow_origins=['*']): that is all; write it alone")
            if self.allow_credentials:
                raise ConfigurationError(
                    "CORS(allow_origins=['*'], allow_credentials=True): every site could act as "
                    "your users; list the origins, or leave allow_credentials out"
                )
            return
        for origin in self.allow_origins:
            _check_origin(origin)

    def _check_names(self) -> None:
        for method in self.allow_methods:
            if method != "*" and not _METHOD.fullmatch(method):
                raise ConfigurationError(
                    f"CORS(allow_methods=[{method!r}]): write a method in capitals, like 'POST'"
                )
        for name in self.allow_headers:
            if name != "*" and not _NAME.fullmatch(name.removesuffix("*")):
                raise ConfigurationError(
                    f"CORS(allow_headers=[{name!r}]): write a header's name, or the beginning of "
                    "one with * at its end, like 'x-stainless-*'"
                )
        for name in self.expose_headers:
            if not _NAME.fullmatch(name) and (name != "*" or self.allow_credentials):
                raise ConfigurationError(
                    f"CORS(expose_headers=[{name!r}]): write each header's whole name; browsers "
                    "know no * in one, and no '*' where there are credentials"
                )


def _words(name: str, value: Any) -> tuple[str, ...]:
    # A single text would be taken apart into its letters.
    is_list = isinstance(value, Iterable) and not isinstance(value, str)
    words: list[Any] = list(value) if is_list else [None]
    if not all(isinstance(word, str) for word in words):
        raise ConfigurationError(f"CORS({name}={value!r}): write a list of texts")
    return tuple(words)


def _compiled(regex: Any) -> re.Pattern[str] | None:
    if regex is None:
        return None
    try:
        # Of bytes there are patterns too, which match no text.
        pattern = re.compile(regex) if isinstance(regex, str) else None
    except re.error:
        pattern = None
    if pattern is None:
        raise ConfigurationError(
            f"CORS(allow_origin_regex={regex!r}): write a regular expression like "
            r"r'https://[a-z0-9-]+\.app\.example'"
        )
    return pattern


def _check_origin(origin: str) -> None:
    shown = f"CORS(allow_origins=[{origin!r}])"
    if origin == "null":
        return
    if "*" in origin:
        raise ConfigurationError(f"{shown}: for a pattern, use allow_origin_regex=")
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        raise ConfigurationError(
            f"{shown}: write an origin as browsers send it, 'https://app.example' or "
            "'http://localhost:3000': in small letters, without a path or a slash at its end"
        )
    scheme, _, port = match.groups()
    if port is not None and _DEFAULT_PORTS.get(scheme) == port:
        raise ConfigurationError(f"{shown}: leave :{port} out, as browsers do")
