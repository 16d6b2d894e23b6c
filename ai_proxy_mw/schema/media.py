"""The judge of all that a request holds beside its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw.schema.files import Documents
from ai_proxy_mw.schema.found import Found
from ai_proxy_mw.schema.pictures import Picture, Pictures
from ai_proxy_mw.schema.sounds import Sounds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ai_proxy_mw._media import Audio, Files, Images

__all__ = ["Found", "Picture", "judge"]


def judge(found: Iterable[Found], images: Images, audio: Audio, files: Files) -> list[Picture]:
    """Hold each part of a request, in its order, against what the owner lets through.

    Gives the pictures, for later stages to fetch or to count. Nothing is decoded but beginnings,
    ends and what leads from one to the other; time grows with the size of the data, memory does
    not.

    Raises InvalidRequest for the first part that is wrong, with its `param` and one of the codes
    in docs/validation-media.md. The one that goes beyond a count or a total is the wrong one.
    """
    pictures, sounds, documents = Pictures(images), Sounds(audio), Documents(files)
    for one in found:
        if one.kind == "audio":
            sounds.judge(one)
        elif one.kind in ("file", "file_link"):
            documents.judge(one)
        else:
            pictures.judge(one)
    return pictures.seen
