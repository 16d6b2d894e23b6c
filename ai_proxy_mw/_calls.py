"""What both doors do before the corridor."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

_SANE_ID = re.compile(rb"[A-Za-z0-9._:@=+/-]{1,128}")


def request_id(headers: RawHeaders) -> str:
    """The caller's X-Request-ID if it is one short word, else a new one."""
    for name, value in headers:
        if name == b"x-request-id":
            if _SANE_ID.fullmatch(value):
                return value.decode("ascii")
            break
    # A name to find a call by, not a secret: `secrets` would ask the kernel for every call.
    return f"req_{random.getrandbits(96):024x}"


def declared_length(headers: RawHeaders) -> int | None:
    """The Content-Length, where it is a number; else the body is counted as it comes."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 19 else None
    return None
