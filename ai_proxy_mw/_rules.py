"""What a call must be to go upstream, put together from the arguments of AIProxy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ai_proxy_mw._caps import Caps
from ai_proxy_mw._checks import checks_of
from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._media import Audio, Files, Images
from ai_proxy_mw._models import models_of
from ai_proxy_mw.fetching.addresses import public_or_in
from ai_proxy_mw.fetching.fetcher import Fetcher
from ai_proxy_mw.schema.reader import Reader
from ai_proxy_mw.schema.upload_rules import UploadRules, upload_rules

if TYPE_CHECKING:
    from ai_proxy_mw._checks import Check
    from ai_proxy_mw._models import Models

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """For the stages between the limits and the relay.

    reader: judges what is read; None where nothing is.
    fetcher: of pictures; None where none are fetched.
    uploads: of the endpoints whose uploads are judged while they pass.
    """

    reader: Reader | None
    models: Models
    caps: Caps
    checks: tuple[Check, ...]
    fetcher: Fetcher | None
    uploads: Mapping[str, UploadRules]

    @property
    def look_at_calls(self) -> bool:
        """Whether each call must be known."""
        return (
            self.reader is not None or self.models.holds or self.caps != Caps() or bool(self.checks)
        )


def rules_of(
    *,
    validate: bool,
    strict: bool,
    images: Images | None,
    audio: Audio | None,
    files: Files | None,
    models: Models | Iterable[str] | None,
    caps: Caps | None,
    checks: Iterable[Check],
) -> Rules:
    """Raises ConfigurationError."""
    for name, value in (("validate", validate), ("strict", strict)):
        if not isinstance(value, bool):
            raise ConfigurationError(f"{name}={value!r}: write True or False")
    given = checks_of(checks)
    reader = Reader(
        strict=strict,
        deep=bool(given),
        images=_or_default("images", images, Images),
        audio=_or_default("audio", audio, Audio),
        files=_or_default("files", files, Files),
    )
    return Rules(
        reader=reader if validate else None,
        models=models_of(models),
        caps=_or_default("caps", caps, Caps),
        checks=given,
        fetcher=_fetcher(reader) if validate and reader.images.urls == "inline" else None,
        uploads=upload_rules(reader.audio, reader.images) if validate else {},
    )


def _fetcher(reader: Reader) -> Fetcher:
    images = reader.images
    return Fetcher(images, judge=reader.format_of, is_allowed=public_or_in(images.networks))


def _or_default(name: str, value: T | None, kind: type[T]) -> T:
    if value is not None and not isinstance(value, kind):
        raise ConfigurationError(f"{name}={value!r}: write {kind.__name__}(...)")
    return kind() if value is None else value
