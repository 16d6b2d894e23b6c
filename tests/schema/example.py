"""One example of a request, and short words to write many with."""

from __future__ import annotations

from typing import Any, NamedTuple

Body = dict[str, Any]
Media = tuple[str, str, str | None]
"""Kind, param, and what is declared of the format."""

PNG = "data:image/png;base64,iVBORw0KGgo="
JPEG = "data:image/jpeg;base64,/9j/4AA="
PDF = "data:application/pdf;base64,JVBERi0xLjQK"
LINK = "https://pictures.example/boardwalk.jpg"


class Example(NamedTuple):
    """A request that its endpoint takes.

    media: what is to be found in it.
    strict: whether it passes also where nothing unknown may.
    """

    endpoint: str
    name: str
    body: Body
    media: tuple[Media, ...] = ()
    strict: bool = True

    def __str__(self) -> str:
        return f"{self.endpoint.split(' /')[1]}: {self.name}"
