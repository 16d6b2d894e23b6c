"""Asks both: the typed decoder and the judge."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec

from ai_proxy_mw.schema.found import Found
from ai_proxy_mw.schema.json_text import unescaped
from ai_proxy_mw.schema.judge import Judge
from ai_proxy_mw.schema.looks import Unfit
from ai_proxy_mw.schema.tables import TABLES
from ai_proxy_mw.schema.typed import Typed

REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Unfit)
"""What the typed decoder raises."""


@cache
def typed(endpoint: str, *, strict: bool) -> Typed:
    return Typed(TABLES[endpoint].body, strict=strict)


def decode(endpoint: str, body: Any, *, strict: bool = False) -> list[Found]:
    """What the typed decoder finds. Raises one of REFUSED."""
    return typed(endpoint, strict=strict).decode(json.dumps(body).encode())


def judge(endpoint: str, body: Any, *, strict: bool = False) -> list[Found]:
    """What the judge finds. Raises InvalidRequest."""
    judging = Judge(strict=strict)
    judging.check(TABLES[endpoint].body, body, "")
    return judging.found


def plain(found: list[Found]) -> list[tuple[str, str, str, str | None]]:
    return [(each.kind, each.param, unescaped(bytes(each.value)), each.declared) for each in found]
