"""Reading the address of a picture, and refusing it before anything is looked up."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urljoin

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.fetching.addresses import IPAddress, is_public
from ai_proxy_mw.fetching.hosts import Hosts, is_inside, read_host
from ai_proxy_mw.fetching.refusals import forbidden, invalid, redirected

if TYPE_CHECKING:
    from ai_proxy_mw._media import Images

MAX_URL = 8192
"""Characters; signed addresses are long, and servers commonly take 8 KiB."""

# RFC 3986, section 3, with the authority that http needs. urllib's parser takes out tabs and line
# ends first, and so reads another address than the one that was written.
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.DOTALL)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")

# Controls and spaces, of Latin-1 and of Unicode; the backslash, which browsers take for a slash and
# others for a character of the host; halves of characters, which cannot be sent.
_NEVER = re.compile(
    r"[\x00-\x20\x7f-\xa0\\\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ud800-\udfff]"
)

_PORTS = {"http": 80, "https": 443}
_KEPT = "%!$&'()*+,/:;=@?~[]"  # what may stand in a path or query as it is


class WebAddress(NamedTuple):
    """What to ask, and whom."""

    scheme: str
    host: str | IPAddress
    port: int
    target: bytes
    """Path and query, as they go over the wire."""

    @property
    def authority(self) -> str:
        """What the Host header says (RFC 9110, section 7.2)."""
        host = self.name
        if ":" in host:
            host = f"[{host}]"
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """The host, as a certificate names it."""
        return str(self.host)


class Rules:
    """The owner's rules for addresses.

    is_allowed: which IP addresses may be asked, where one is written out.

    Raises ConfigurationError for a list of hosts that cannot be read.
    """

    def __init__(self, images: Images, is_allowed: Callable[[IPAddress], bool] = is_public) -> None:
        self._schemes = ("http", "https") if images.allow_http else ("https",)
        self._allow = (
            None if images.allow_hosts is None else Hosts(images.allow_hosts, "allow_hosts")
        )
        self._deny = Hosts(images.deny_hosts, "deny_hosts")
        self._is_allowed = is_allowed

    def read(self, url: str) -> WebAddress:
        """The address, if it may be asked.

        The port must be its scheme's own, unless the host is one of `allow_hosts`.

        Raises InvalidRequest with `invalid_image_url` or `image_url_forbidden`.
        """
        _check_text(url)
        parts = _URL.fullmatch(url)
        if parts is None:
            raise invalid("is not a whole URL, like https://example.com/picture.png")
        scheme = parts[1].lower()
        if scheme not in self._schemes:
            raise invalid(f"must begin with {' or '.join(f'{name}://' for name in self._schemes)}")
        host, port = _read_authority(parts[2])
        self._check(host, port, _PORTS[scheme])
        target = quote((parts[3] or "/") + (parts[4] or ""), safe=_KEPT)
        return WebAddress(scheme, host, port or _PORTS[scheme], target.encode("ascii"))

    def follow(self, url: str, location: str) -> tuple[str, WebAddress]:
        """Where a redirect leads from `url`, held to the same rules.

        Raises InvalidRequest, as `read` does.
        """
        try:
            joined = _join(url, location)
            return joined, self.read(joined)
        except InvalidRequest as error:
            raise redirected(error) from None

    def _check(self, host: str | IPAddress, port: int | None, own_port: int) -> None:
        if isinstance(host, str):
            if is_inside(host):
                raise forbidden()
        elif not self._is_allowed(host):
            raise forbidden()
        if host in self._deny or (self._allow is not None and host not in self._allow):
            raise forbidden()
        if self._allow is None and port not in (None, own_port):
            raise forbidden()


def _check_text(url: str) -> None:
    if len(url) > MAX_URL:
        raise invalid(f"is longer than {MAX_URL} characters")
    if _NEVER.search(url):
        raise invalid("holds a space, a control character or a backslash")


def _join(url: str, location: str) -> str:
    _check_text(location)  # joining would take out what is looked for
    if _SCHEME.match(location):
        return location  # joining would read `http:///host` as a path
    try:
        return urljoin(url, location)
    except ValueError:
        raise invalid("cannot be read") from None


def _read_authority(authority: str) -> tuple[str | IPAddress, int | None]:
    if "@" in authority:
        raise invalid("must not hold a user name or password")
    parts = _AUTHORITY.fullmatch(authority)
    port = int(parts[2]) if parts and parts[2] else None
    if parts is None or (port is not None and not 0 < port < 65536):
        raise invalid("has a host or port that cannot be read")
    try:
        return read_host(parts[1]), port
    except ValueError:
        raise invalid("has a host that is neither a name nor a plainly written address") from None
