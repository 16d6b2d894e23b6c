"""The keys that the app has issued itself."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ai_proxy_mw._errors import ConfigurationError

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._identity import Identity

IssuedKeys = Mapping[str, str | Iterable[str]]
"""The key or keys of each subject, as they are or as `hash_api_key` gives them."""

FindSubject = Callable[[str], "str | Identity | Awaitable[str | Identity | None] | None"]
"""Whose key it is, by the app's own records; None if nobody's."""

_KEY = re.compile(r"[!-~]+")  # what comes through a header as it was sent
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def hash_api_key(key: str) -> str:
    """What to store of an issued key instead of the key: `sha256:` and 64 hexadecimal digits.

    Fit for keys of at least 128 random bits, as `secrets.token_urlsafe` makes them. Not for
    passwords, which can be guessed.
    """
    return "sha256:" + _digest(key).hex()


def presented_key(request: Request) -> str | None:
    """The one key that a caller presents, as `Authorization: Bearer` (RFC 6750) or `x-api-key`.

    None where there is none, where the two differ, and where a header is there twice: who reads
    the first of them and who reads the last would see different callers.
    """
    headers = request.headers
    # Space behind a value is no part of it (RFC 9110, section 5.5), but not all servers know.
    keys = [value.strip(" \t") for value in headers.get_all("x-api-key")]
    lines = headers.get_all("authorization")
    if len(keys) > 1 or len(lines) > 1:
        return None
    for line in lines:
        scheme, _, credentials = line.partition(" ")
        if scheme.lower() != "bearer":
            return None  # another claim, beside which no key is looked at
        keys.append(credentials.strip(" \t"))
    if len(set(keys)) != 1:
        return None
    return keys[0] or None


class ApiKeys:
    """Admits the bearers of the keys it was given.

    What is presented is hashed with a secret of this process before it is looked up. How long
    the look-up takes then depends on bytes that the caller can neither choose nor foresee.
    """

    def __init__(self, issued: IssuedKeys) -> None:
        self._secret = os.urandom(32)
        self._subjects: dict[bytes, str] = {}
        for subject, keys in issued.items():
            if not isinstance(subject, str) or not subject.strip():
                raise ConfigurationError("api_keys: a subject is text that is not blank")
            for digest in _digests(keys):
                blinded = self._blinded(digest)
                if self._subjects.setdefault(blinded, subject) is not subject:
                    raise ConfigurationError("api_keys: two subjects have the same key")
        if not self._subjects:
            raise ConfigurationError("api_keys: there is no key, so nobody could call")

    async def __call__(self, request: Request) -> str | None:
        key = presented_key(request)
        return None if key is None else self._subjects.get(self._blinded(_digest(key)))

    def _blinded(self, digest: bytes) -> bytes:
        return hmac.digest(self._secret, digest, "sha256")

    def __repr__(self) -> str:
        return f"ApiKeys({sorted(set(self._subjects.values()))!r})"


def _digests(keys: Any) -> list[bytes]:
    given = [keys] if isinstance(keys, str) or not isinstance(keys, Iterable) else list(keys)
    if not all(isinstance(key, str) and _KEY.fullmatch(key) for key in given):
        raise ConfigurationError(
            "api_keys: write {'subject': 'key'} or {'subject': ['key', 'next key']}; "
            "a key is visible ASCII without spaces"
        )
    if any(key.lower().startswith("sha256:") and not _HASH.fullmatch(key) for key in given):
        # Taken for a key, what is stored would let in whoever has read it.
        raise ConfigurationError(
            "api_keys: a hash is sha256: and 64 digits in small letters, as hash_api_key gives it"
        )
    return [
        bytes.fromhex(key.removeprefix("sha256:")) if _HASH.fullmatch(key) else _digest(key)
        for key in given
    ]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
