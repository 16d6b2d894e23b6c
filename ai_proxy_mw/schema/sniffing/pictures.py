"""Pictures of the kinds that go upstream."""

from __future__ import annotations

from ai_proxy_mw.schema.sniffing.gif import read_gif
from ai_proxy_mw.schema.sniffing.hidden import refuse_hidden
from ai_proxy_mw.schema.sniffing.jpeg import read_jpeg
from ai_proxy_mw.schema.sniffing.png import read_png
from ai_proxy_mw.schema.sniffing.source import Size, Source
from ai_proxy_mw.schema.sniffing.webp import read_webp

_READERS = {"gif": read_gif, "jpeg": read_jpeg, "png": read_png, "webp": read_webp}


def read_picture(kind: str, source: Source) -> Size:
    """The size of a png, jpeg, webp or gif (what `kind_of` has said of it).

    Raises Broken where it is cut off or its headers make no sense, Polyglot where it is also of
    another kind.
    """
    size = _READERS[kind](source)
    refuse_hidden(source)
    return size
