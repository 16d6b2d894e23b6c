"""Files that are read in pieces, and how a look at one can end."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Source(Protocol):
    """A file, of which only what is asked for is decoded. `Base64Text` is one."""

    size: int

    def slice(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`; what is outside is left out."""
        ...


class Plain:
    """A file, or the beginning of one, as the bytes that it is."""

    __slots__ = ("_data", "size")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data)
        self.size = len(self._data)

    def slice(self, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`; what is outside is left out."""
        return bytes(self._data[max(0, start) : max(0, end)])


class Size(NamedTuple):
    """Of a picture, in pixels, as its headers say; `animated` where it has several frames."""

    width: int
    height: int
    animated: bool


class Broken(ValueError):
    """The file is cut off or makes no sense. The text says where, to follow "the file"."""


class Polyglot(ValueError):
    """The file is also one of another kind. The text says how, to follow "the file"."""


def steps(source: Source, *, least: int = 256) -> range:
    """As many steps as a reader may make through the parts of a file.

    least: bytes of a part on the average, but for the first 4096. Real files have far fewer and
        larger ones; those made to keep us busy run into this.
    """
    return range(4096 + source.size // least)


def exactly(source: Source, start: int, count: int) -> bytes:
    """That many bytes. Raises Broken where the file ends before."""
    data = source.slice(start, start + count)
    if len(data) < count:
        raise Broken("is cut off")
    return data
