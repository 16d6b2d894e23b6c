"""Which endpoints there are: the allow-list of what may be relayed.

An endpoint is written as `METHOD /path`, the path without the prefix, `{id}` for one segment and
`{id...}` for one or more. HEAD is taken wherever GET is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ai_proxy_mw._errors import ConfigurationError, MethodNotAllowed, NotFound

DEFAULT_ENDPOINTS = frozenset(
    {
        "POST /audio/speech",
        "POST /audio/transcriptions",
        "POST /audio/translations",
        "GET /batches",
        "POST /batches",
        "GET /batches/{id}",
        "POST /batches/{id}/cancel",
        "GET /chat/completions",
        "POST /chat/completions",
        "GET /chat/completions/{id}",
        "POST /chat/completions/{id}",
        "DELETE /chat/completions/{id}",
        "GET /chat/completions/{id}/messages",
        "POST /completions",
        "POST /embeddings",
        "GET /files",
        "POST /files",
        "GET /files/{id}",
        "DELETE /files/{id}",
        "GET /files/{id}/content",
        "POST /images/edits",
        "POST /images/generations",
        "POST /images/variations",
        "POST /messages",
        "POST /messages/count_tokens",
        "GET /models",
        "GET /models/{id...}",
        "POST /moderations",
        "POST /responses",
        "GET /responses/{id}",
        "DELETE /responses/{id}",
        "POST /responses/{id}/cancel",
        "GET /responses/{id}/input_items",
        "POST /uploads",
        "POST /uploads/{id}/cancel",
        "POST /uploads/{id}/complete",
        "POST /uploads/{id}/parts",
    }
)
"""What is relayed unless `endpoints=` says otherwise.

Narrow or widen it as a set: `DEFAULT_ENDPOINTS - {"GET /files"} | {"POST /rerank"}`.
"""

# One segment as it is sent upstream. Starts with a letter or digit, so it is never `.` or `..`,
# and has nothing that any server would decode, split or strip.
_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._~:@+,=-]*"
_ENDPOINT = re.compile(
    r"(GET|POST|PUT|PATCH|DELETE) ((?:/(?:[A-Za-z0-9_.-]+|\{id\}))+(?:/\{id\.\.\.\})?)"
)


class Endpoints:
    """Finds the endpoint of a path. Raises ConfigurationError for one that cannot be read.

    `own` are those that the proxy answers itself. `written` are all of them in their order, as
    they were written.
    """

    def __init__(self, endpoints: Iterable[str], *own: str) -> None:
        if isinstance(endpoints, str):
            raise ConfigurationError(f"endpoints={endpoints!r}: write a set of endpoints")
        self.written = tuple(sorted({*endpoints, *own}))
        self._exact: dict[str, dict[str, str]] = {}
        patterns: dict[str, dict[str, str]] = {}
        for endpoint in self.written:
            match = _ENDPOINT.fullmatch(endpoint)
            if match is None:
                raise ConfigurationError(
                    f"endpoints: {endpoint!r}: write one like 'POST /chat/completions' or "
                    "'GET /files/{id}', without the prefix"
                )
            method, path = match.groups()
            table = patterns if "{" in path else self._exact
            methods = table.setdefault(path, {})
            methods[method] = endpoint
            if method == "GET":
                methods["HEAD"] = endpoint
        self._patterns = [(_compile(path), methods) for path, methods in patterns.items()]

    def find(self, method: str, path: str) -> str:
        """The endpoint as it was written. Raises NotFound and MethodNotAllowed."""
        methods = self.methods(path)
        endpoint = methods.get(method)
        if endpoint is None:
            raise MethodNotAllowed(allow(methods))
        return endpoint

    def methods(self, path: str) -> dict[str, str]:
        """The endpoint for each method that a path has. Raises NotFound."""
        methods = self._exact.get(path)
        if methods is not None:
            return methods
        for pattern, methods in self._patterns:
            if pattern.fullmatch(path):
                return methods
        raise NotFound


def allow(methods: Iterable[str]) -> str:
    """The value of an `Allow` header (RFC 9110, section 10.2.1)."""
    return ", ".join(sorted({*methods, "OPTIONS"}))


def _compile(path: str) -> re.Pattern[str]:
    pattern = re.escape(path)
    pattern = pattern.replace(re.escape("{id...}"), f"{_SEGMENT}(?:/{_SEGMENT})*")
    return re.compile(pattern.replace(re.escape("{id}"), _SEGMENT))
