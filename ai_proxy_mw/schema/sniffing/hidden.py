"""Files that are of two kinds at once: a picture to one reader, something else to another.

The rule, which is cheap since it reads only the ends of a file:

- a picture ends where its format says (each reader sees to that); only padding may follow;
- the first KiB and the last 64 KiB hold no beginning of a PDF, of a page or of a script, and the
  last 64 KiB no directory of a ZIP archive.

The needles are long enough that compressed data holds one by accident less than once in ten
million pictures. What is hidden in the midst of a picture is not looked for: only decoding and
encoding anew would take it out.
"""

from __future__ import annotations

import re

from ai_proxy_mw.schema.sniffing.source import Polyglot, Source

HEAD = 1024
"""Readers of PDF look for its header that far (ISO 32000-1, annex H, implementation note 13)."""

TAIL = 64 * 1024 + 22
"""Readers of ZIP look for its directory that far from the end (APPNOTE.TXT, section 4.3.16)."""

PADDING = b"\0\r\n"

_PAGE = re.compile(rb"%PDF-\d\.|<\?php\s|<script[\s>]|<html[\s>]|<!doctype html", re.IGNORECASE)

# The end of the directory, of an archive of one volume.
_ZIP = b"PK\x05\x06\0\0\0\0"


def refuse_hidden(source: Source) -> None:
    """Raises Polyglot if something of another kind is at either end."""
    tail = source.slice(source.size - TAIL, source.size)
    if _PAGE.search(source.slice(0, HEAD)) or _PAGE.search(tail):
        raise Polyglot("holds a document or a script")
    if _ZIP in tail:
        raise Polyglot("holds a ZIP archive")


def refuse_more(source: Source, end: int) -> None:
    """Raises Polyglot if there is more than padding behind the end of a picture."""
    if source.size - end > TAIL or source.slice(end, source.size).strip(PADDING):
        raise Polyglot("has something behind its end")
