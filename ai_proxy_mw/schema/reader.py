"""From the bytes of a request to the call that they mean, judged before it costs money."""

from __future__ import annotations

from codecs import BOM_UTF8, getincrementaldecoder
from dataclasses import dataclass, field
from functools import cache

import msgspec

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw._media import Audio, Files, Images
from ai_proxy_mw.schema.call import Call
from ai_proxy_mw.schema.doubles import refuse_doubles
from ai_proxy_mw.schema.found import Found
from ai_proxy_mw.schema.judge import Judge
from ai_proxy_mw.schema.looks import Unfit
from ai_proxy_mw.schema.media import judge as judge_media
from ai_proxy_mw.schema.members import check_complexity, not_an_object
from ai_proxy_mw.schema.pictures import Picture, judge_picture
from ai_proxy_mw.schema.sniffing.source import Plain
from ai_proxy_mw.schema.tables import TABLES
from ai_proxy_mw.schema.typed import Typed

_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Unfit)

_SLICE = 256 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """Reads and judges calls.

    strict: whether members and parts that no table knows are refused.
    deep: whether members of one name are looked for in every object, and not only where media make
        it matter.
    images, audio, files: which of them may be sent.
    """

    strict: bool = False
    deep: bool = False
    images: Images = field(default_factory=Images)
    audio: Audio = field(default_factory=Audio)
    files: Files = field(default_factory=Files)

    def read(self, endpoint: str, body: bytes) -> Call:
        """The call. Raises InvalidRequest for the first mistake, by position."""
        _check_text(body)
        call = Call(endpoint, body)
        found, is_new = self._found(endpoint, body)
        call.media = found
        call.pictures = self._judged(found)
        if found or is_new or self.deep or _typed(endpoint, self.strict).may_hold_media(body):
            refuse_doubles(body, [each.value for each in found])
        return call

    def format_of(self, data: bytes) -> str:
        """The format of a picture by its bytes. Raises InvalidRequest if it may not be sent."""
        return judge_picture(Plain(data), None, self.images, "").format

    def _found(self, endpoint: str, body: bytes) -> tuple[list[Found], bool]:
        """The media of a body, and whether it holds something that the typed decoder cannot."""
        try:
            return _typed(endpoint, self.strict).decode(body), False
        except _BAD:
            check_complexity(body)
        try:
            decoded = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise not_an_object(error) from None
        judge = Judge(strict=self.strict)
        try:
            judge.check(TABLES[endpoint].body, decoded, "")
        except InvalidRequest:
            self._judged(judge.found)  # what stands before the mistake is the first, if it is one
            raise
        return judge.found, True

    def _judged(self, found: list[Found]) -> list[Picture]:
        return judge_media(found, self.images, self.audio, self.files) if found else []


@cache
def _typed(endpoint: str, strict: bool) -> Typed:
    return Typed(TABLES[endpoint].body, strict=strict)


def _check_text(body: bytes) -> None:
    if not body:
        raise InvalidRequest("The request body is empty; send a JSON object.", code="invalid_json")
    if body.startswith(BOM_UTF8):
        # RFC 8259, section 8.1
        raise InvalidRequest("The request body begins with a byte order mark.", code="invalid_json")
    if not body.isascii():
        _check_utf8(body)


def _check_utf8(body: bytes) -> None:
    decoder = getincrementaldecoder("utf-8")()
    at = 0
    try:
        for at in range(0, len(body), _SLICE):
            decoder.decode(body[at : at + _SLICE], at + _SLICE >= len(body))
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The request body is not UTF-8: {error.reason} (about byte {at + error.start}).",
            code="invalid_json",
        ) from None
