"""Which pictures, sounds and files may go upstream. Frozen, keyword-only, checked when made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ai_proxy_mw._errors import ConfigurationError

Urls = Literal["pass", "inline", "refuse"]

MIB = 1024 * 1024

IMAGE_FORMATS = ("png", "jpeg", "webp", "gif")
AUDIO_FORMATS = ("wav", "mp3", "flac", "ogg", "m4a", "webm", "aac", "opus")
FILE_FORMATS = ("pdf",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Pictures in requests.

    urls: what becomes of pictures given by an http(s) address: `pass` sends the address on,
        `inline` fetches the picture and sends it as a data URL, `refuse` answers 400.
    formats: what may be sent, by the bytes and not by the name: of png, jpeg, webp, gif.
    animated: whether pictures with several frames may be.
    max_bytes: of one picture, decoded.
    max_total_bytes: of all pictures of a request.
    max_count: pictures in a request.
    max_side: pixels of the longer side, as the picture's header says.
    max_pixels: width times height.

    For `urls="inline"`:

    allow_hosts: the only hosts that pictures are fetched from, as names or `*.example.com`.
    deny_hosts: hosts that they are never fetched from.
    networks: what may be asked besides the public internet, like `10.1.2.0/24`.
    allow_http: whether plain http is fetched, too.
    max_redirects: each is checked like the first address.
    timeout: seconds for one picture, from the look-up of its host to its last byte.
    max_concurrent: pictures fetched at once by an event loop, of which a process has one.
    cache_bytes: of fetched pictures kept in the process; 0 for none.
    cache_ttl: seconds that they are kept.

    Raises ConfigurationError.
    """

    urls: Urls = "pass"
    formats: Iterable[str] = IMAGE_FORMATS
    animated: bool = False
    max_bytes: int = 20 * MIB
    max_total_bytes: int = 50 * MIB
    max_count: int = 100
    max_side: int = 16_384
    max_pixels: int = 90_000_000
    allow_hosts: Iterable[str] | None = None
    deny_hosts: Iterable[str] = ()
    networks: Iterable[str] = ()
    allow_http: bool = False
    max_redirects: int = 3
    timeout: float = 10.0
    max_concurrent: int = 16
    cache_bytes: int = 0
    cache_ttl: float = 300.0

    def __post_init__(self) -> None:
        if self.urls not in get_args(Urls):
            raise ConfigurationError(f"Images(urls={self.urls!r}): write one of {get_args(Urls)}")
        for name in ("animated", "allow_http"):
            _check_flag(self, name)
        for name in ("max_bytes", "max_total_bytes", "max_count", "max_side", "max_pixels"):
            _check_amount(self, name, least=1)
        _check_amount(self, "max_concurrent", least=1)
        for name in ("max_redirects", "cache_bytes"):
            _check_amount(self, name, least=0)
        for name in ("timeout", "cache_ttl"):
            _check_seconds(self, name)
        _freeze_formats(self, IMAGE_FORMATS)
        if self.allow_hosts is not None:
            _freeze_names(self, "allow_hosts")
        _freeze_names(self, "deny_hosts")
        _freeze_names(self, "networks")


@dataclass(frozen=True, kw_only=True, slots=True)
class Audio:
    """Sounds in requests, and in uploads to be transcribed.

    formats: what may be sent, by the bytes: of wav, mp3, flac, ogg, m4a, webm, aac, opus; None for
        anything, also raw samples, of which only the size is judged.
    max_bytes: of one sound, decoded.
    max_count: sounds in a request.

    Raises ConfigurationError.
    """

    formats: Iterable[str] | None = AUDIO_FORMATS
    max_bytes: int = 25 * MIB
    max_count: int = 10

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_count"):
            _check_amount(self, name, least=1)
        if self.formats is not None:
            _freeze_formats(self, AUDIO_FORMATS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """Files in requests (`file_data`).

    formats: what may be sent, by the bytes: pdf; None for anything, of which only the size is
        judged.
    max_bytes: of one file, decoded.
    max_count: files in a request.

    Raises ConfigurationError.
    """

    formats: Iterable[str] | None = FILE_FORMATS
    max_bytes: int = 32 * MIB
    max_count: int = 20

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_count"):
            _check_amount(self, name, least=1)
        if self.formats is not None:
            _freeze_formats(self, FILE_FORMATS)


def _check_flag(value: Any, name: str) -> None:
    if not isinstance(getattr(value, name), bool):
        raise _wrong(value, name, "write True or False")


def _check_amount(value: Any, name: str, *, least: int) -> None:
    amount = getattr(value, name)
    if type(amount) is not int or amount < least:
        raise _wrong(value, name, f"write a whole number from {least}")


def _check_seconds(value: Any, name: str) -> None:
    seconds = getattr(value, name)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise _wrong(value, name, "write a number of seconds above 0")


def _freeze_formats(value: Any, known: tuple[str, ...]) -> None:
    _freeze_names(value, "formats")
    if not set(value.formats) <= set(known):
        raise _wrong(value, "formats", f"write some of {', '.join(known)}")


def _freeze_names(value: Any, name: str) -> None:
    given = getattr(value, name)
    names = () if isinstance(given, str) else tuple(given)
    if isinstance(given, str) or not all(isinstance(item, str) for item in names):
        raise _wrong(value, name, "write a list of names")
    object.__setattr__(value, name, names)


def _wrong(value: Any, name: str, write: str) -> ConfigurationError:
    return ConfigurationError(f"{type(value).__name__}({name}={getattr(value, name)!r}): {write}")
