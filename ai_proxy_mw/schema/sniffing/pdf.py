"""PDF: whether one is whole, and nothing behind it (ISO 32000-2, sections 7.5.2 and 7.5.5)."""

from __future__ import annotations

from ai_proxy_mw.schema.sniffing.hidden import PADDING
from ai_proxy_mw.schema.sniffing.source import Broken, Polyglot, Source

_TAIL = 1024
_END = b"%%EOF"


def check_pdf(source: Source) -> None:
    """That it ends as it should. Raises Broken, Polyglot.

    Readers look for the end marker in the last KiB (ISO 32000-1, annex H, note 18).
    """
    tail = source.slice(source.size - _TAIL, source.size)
    found = tail.rfind(_END)
    if found < 0:
        raise Broken("is cut off, or has something behind its end")
    if tail[found + len(_END) :].strip(PADDING + b" \t"):
        raise Polyglot("has something behind its end")
