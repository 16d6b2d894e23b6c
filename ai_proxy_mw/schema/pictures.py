"""Whether the pictures of a request are such as its owner lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.data_url import is_data_url
from ai_proxy_mw.schema.found import Found, base64_of, data_url_of, essence, link_of
from ai_proxy_mw.schema.sniffing.kind import kind_of
from ai_proxy_mw.schema.sniffing.pictures import read_picture
from ai_proxy_mw.schema.sniffing.source import Broken, Polyglot, Source

if TYPE_CHECKING:
    from ai_proxy_mw._media import Images

# The registered media types (IANA), and what is often written for them.
_TYPES = {
    "image/gif": "gif",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/pjpeg": "jpeg",
    "image/png": "png",
    "image/webp": "webp",
    "image/x-png": "png",
}


class Picture(NamedTuple):
    """A picture that may pass.

    url: its address where it is given by one, of which nothing else is known.
    format: png, jpeg, webp or gif.
    width, height: in pixels, as its header says.
    size: in bytes, decoded.
    """

    param: str
    url: str | None = None
    format: str = ""
    width: int = 0
    height: int = 0
    size: int = 0


class Pictures:
    """Those of one request. `seen` has them in the order in which they came."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._total = 0
        self.seen: list[Picture] = []

    def judge(self, found: Found) -> None:
        """Look at one more. Raises InvalidRequest."""
        most = self._images.max_count
        if len(self.seen) >= most:
            message = f"The request has more than {most} pictures."
            raise InvalidRequest(message, param=found.param, code="too_many_images")
        if found.kind == "image_data":
            picture = self._data(found.value, found.declared, found.param)
        elif found.kind == "image" and is_data_url(found.value):
            media_type, text = data_url_of(found, "picture", "invalid_image_url")
            picture = self._data(text, media_type or "text/plain", found.param)
        else:
            picture = self._link(found)
        self.seen.append(picture)

    def _data(self, text: bytes | memoryview, declared: str | None, param: str) -> Picture:
        source = base64_of(text, "picture", param)
        self._total += source.size
        most = self._images.max_total_bytes
        picture = judge_picture(source, declared, self._images, param)
        if self._total > most:
            message = f"The pictures of the request are larger than {most} bytes in all."
            raise InvalidRequest(message, param=param, code="image_too_large")
        return picture

    def _link(self, found: Found) -> Picture:
        url = link_of(found, "picture", "invalid_image_url")
        if self._images.urls == "refuse":
            message = "Pictures by address are not taken here: send the data, as a data URL."
            raise InvalidRequest(message, param=found.param, code="image_url_refused")
        return Picture(found.param, url)


def judge_picture(source: Source, declared: str | None, images: Images, param: str) -> Picture:
    """Look at one picture by itself, wherever its bytes come from.

    declared: its media type; None where nothing is said of it.

    Raises InvalidRequest with that `param`.
    """
    if source.size > images.max_bytes:
        message = f"The picture is larger than {images.max_bytes} bytes."
        raise InvalidRequest(message, param=param, code="image_too_large")
    kind = kind_of(source)
    _check_format(kind, declared, images, param)
    try:
        width, height, animated = read_picture(kind, source)
    except Broken as error:
        message = f"The picture cannot be read: it {error}."
        raise InvalidRequest(message, param=param, code="broken_image") from None
    except Polyglot as error:
        message = f"The picture is more than a picture: it {error}. Save it anew as a plain {kind}."
        raise InvalidRequest(message, param=param, code="polyglot_file") from None
    if animated and not images.animated:
        message = "The picture is animated: send a single frame."
        raise InvalidRequest(message, param=param, code="animated_image")
    _check_size(width, height, images, param)
    return Picture(param, None, kind, width, height, source.size)


def _check_format(kind: str, declared: str | None, images: Images, param: str) -> None:
    wanted = ", ".join(images.formats)
    known = None if declared is None else _TYPES.get(essence(declared), "")
    if known is not None and known not in images.formats:
        message = f"The picture is declared as a type that is not taken here: send {wanted}."
        raise InvalidRequest(message, param=param, code="unsupported_image_format")
    if kind not in images.formats:
        what = "of no format known here" if kind == "unknown" else f"of the format {kind}"
        message = f"The picture is {what}, which is not taken: send {wanted}."
        raise InvalidRequest(message, param=param, code="unsupported_image_format")
    if known not in (None, kind):
        message = f"The picture is declared as {known}, but its data are {kind}."
        raise InvalidRequest(message, param=param, code="image_format_mismatch")


def _check_size(width: int, height: int, images: Images, param: str) -> None:
    code = "image_dimensions_too_large"
    if max(width, height) > images.max_side:
        message = f"The picture is {width} x {height} pixels; a side may have {images.max_side}."
        raise InvalidRequest(message, param=param, code=code)
    if width * height > images.max_pixels:
        message = f"The picture is {width} x {height} pixels; it may have {images.max_pixels}."
        raise InvalidRequest(message, param=param, code=code)
