"""What both doors read of a request's head before the corridor."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_proxy_mw._types import RawHeaders

_SANE_ID = re.compile(rb"[A-Za-z0-9._:@=+/-]{1,128}")


def read_head(headers: RawHeaders) -> tuple[str, int | None]:
    """The request's id and its Content-Length.

    The id is the caller's X-Request-ID if that is one short word, else a new one. The length is
    None where it is no number; the body is then counted as it comes.
    """
    said = dict(headers)
    length = said.get(b"content-length", b"")
    size = int(length) if length.isdigit() and len(length) < 19 else None
    if b"x-request-id" in said:
        theirs = [value for name, value in headers if name == b"x-request-id"]
        sane = [value for value in theirs if _SANE_ID.fullmatch(value)]
        if sane:
            return sane[-1].decode("ascii"), size
    # A name to find a call by, not a secret: `secrets` would ask the kernel for every call.
    return f"req_{random.getrandbits(96).to_bytes(12, 'big').hex()}", size
