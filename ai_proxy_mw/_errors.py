"""Every way a call can end badly, and how each is told to the caller.

ProxyError
├── InvalidRequest                 400
│   └── Refused                    400
├── Unauthorized                   401
├── Forbidden                      403
│   ├── ModelNotAllowed            403
│   └── PriceUnknown               403
├── AppRefused                     as the app says
├── NotFound                       404
├── MethodNotAllowed               405
├── RequestTimeout                 408
├── PayloadTooLarge                413
├── RateLimited                    429
├── UnsupportedMediaType           415
├── Unavailable                    503
│   └── Overloaded                 503
├── NotCached                      504
├── InternalError                  500
└── UpstreamError                  502
    ├── UpstreamUnreachable        502
    ├── UpstreamDisconnected       502
    │   └── StaleConnection        502
    ├── UpstreamProtocolError      502
    ├── UpstreamBusy               503
    ├── UpstreamsDown              503
    └── UpstreamTimeout            504
ConfigurationError                 a wrong argument or environment variable
ClientGone                         the caller left: nobody is there to be told
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from typing import Self

    from ai_proxy_mw._types import RawHeaders


_CHALLENGE = re.compile(r"[ -~]+")


class ConfigurationError(ValueError):
    """An argument or environment variable is wrong; the text says what to write instead."""


class ClientGone(Exception):
    """The caller closed the connection."""


class ProxyError(Exception):
    """Base of the errors that have an answer; each knows its status, type and code.

    code: in place of that of the class, where it tells more exactly what is wrong.
    """

    status: int = 500
    type: str = "server_error"
    code: str = "internal_error"
    retry_after: int | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        self.extra: RawHeaders = []

    def body(self) -> bytes:
        """The OpenAI error object as JSON."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.type,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )

    def twin(self) -> Self:
        """The same error for another caller, without what was added for the first one."""
        other = self.__class__.__new__(self.__class__)
        other.__dict__.update(self.__dict__, extra=[])
        other.args = self.args
        other.__cause__ = self.__cause__  # the log tells it
        return other

    def headers(self) -> RawHeaders:
        """The header lines that belong to this error."""
        if self.retry_after is None:
            return []
        return [(b"retry-after", b"%d" % self.retry_after)]


class InvalidRequest(ProxyError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class Refused(InvalidRequest):
    """Raised by a check of the app: what is asked is not allowed."""

    code = "refused"


class Unauthorized(ProxyError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"

    def __init__(
        self,
        message: str = "You need to be signed in to call this API.",
        *,
        challenge: str = "Bearer",
    ) -> None:
        super().__init__(message)
        if not _CHALLENGE.fullmatch(challenge):
            raise ValueError(
                "challenge: write one line of visible ASCII, like 'Basic realm=\"shop\"'"
            )
        self.challenge = challenge

    def headers(self) -> RawHeaders:
        # RFC 9110, section 11.6.1: a 401 must name the way to authenticate.
        return [(b"www-authenticate", self.challenge.encode("ascii"))]


class Forbidden(ProxyError):
    status = 403
    type = "permission_error"
    code = "forbidden"

    def __init__(self, message: str = "You may not call this API.") -> None:
        super().__init__(message)


class ModelNotAllowed(Forbidden):
    code = "model_not_allowed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.param = "model"


class PriceUnknown(Forbidden):
    """There is a limit of money, and nobody knows what the call would cost."""

    code = "price_unknown"

    def __init__(self) -> None:
        super().__init__("What this call costs is not known, and your budget is limited.")
        self.param = "model"


_REFUSALS = {
    401: (Unauthorized.type, Unauthorized.code),
    403: (Forbidden.type, Forbidden.code),
}


class AppRefused(ProxyError):
    """The app has refused the call with a status of its own, which is told in our shape."""

    def __init__(self, status: int, message: str, headers: RawHeaders | None = None) -> None:
        super().__init__(message)
        self.status = status
        self._headers = headers or []
        if status < 500:
            self.type, self.code = _REFUSALS.get(status, (InvalidRequest.type, "refused"))

    def headers(self) -> RawHeaders:
        if self.status == 401 and all(name != b"www-authenticate" for name, _ in self._headers):
            return [*self._headers, *Unauthorized().headers()]
        return self._headers


class NotFound(ProxyError):
    status = 404
    type = "invalid_request_error"
    code = "unknown_url"

    def __init__(self, message: str = "There is no such endpoint here.") -> None:
        super().__init__(message)


class MethodNotAllowed(ProxyError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, allow: str) -> None:
        super().__init__(f"This endpoint takes {allow}.")
        self.allow = allow

    def headers(self) -> RawHeaders:
        return [(b"allow", self.allow.encode("ascii"))]


class RequestTimeout(ProxyError):
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"

    def __init__(self) -> None:
        super().__init__("The request body did not arrive in time.")


class PayloadTooLarge(ProxyError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body is larger than {limit} bytes.")


class UnsupportedMediaType(ProxyError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class RateLimited(ProxyError):
    """`kind` is what there was too much of, as OpenAI names it: requests, tokens, a quota."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, kind: str, retry_after: int) -> None:
        super().__init__(message)
        self.type = kind
        self.retry_after = retry_after
        if kind == "insufficient_quota":
            self.code = kind


class Unavailable(ProxyError):
    status = 503
    code = "unavailable"
    retry_after = 1

    def __init__(self, message: str = "The service is stopping.") -> None:
        super().__init__(message)


class Overloaded(Unavailable):
    """There are as many calls under way, and waiting, as there may be."""

    code = "overloaded"

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__(f"Too many calls are under way just now. Try again in {retry_after} s.")
        self.retry_after = retry_after


class NotCached(ProxyError):
    """The caller wanted an answer from the cache or none (RFC 9111, section 5.2.1.7)."""

    status = 504
    type = "invalid_request_error"
    code = "not_cached"

    def __init__(self) -> None:
        super().__init__("There is no kept answer to this, and only-if-cached was asked.")


class InternalError(ProxyError):
    def __init__(self) -> None:
        # Says nothing of the inside; the log has the traceback under the request id.
        super().__init__("Something went wrong on our side.")


class UpstreamError(ProxyError):
    """The upstream did not answer as it should. The text never names it.

    sent: whether the upstream may have had the whole request, and so may have worked on it.
    """

    status = 502
    type = "upstream_error"
    code = "upstream_error"
    sent: bool = True
    ours: bool = False
    """Whether a bound of ours has ended it, which a caller can bring about by being slow."""
    told: tuple[tuple[bytes, bytes], ...] = ()
    """Header lines that tell who was asked, and how often."""

    def headers(self) -> RawHeaders:
        return [*super().headers(), *self.told]


class UpstreamUnreachable(UpstreamError):
    code = "upstream_unreachable"
    sent = False

    def __init__(self) -> None:
        super().__init__("The upstream service could not be reached.")


class UpstreamDisconnected(UpstreamError):
    code = "upstream_disconnected"

    def __init__(self) -> None:
        super().__init__("The upstream service broke off the connection.")


class StaleConnection(UpstreamDisconnected):
    """A kept connection was closed before anything of the answer came."""


class UpstreamProtocolError(UpstreamError):
    code = "upstream_bad_response"

    def __init__(self) -> None:
        super().__init__("The upstream service gave an answer that cannot be read.")


class UpstreamBusy(UpstreamError):
    status = 503
    code = "upstream_busy"
    retry_after = 1
    sent = False

    def __init__(self) -> None:
        super().__init__("All connections to the upstream service are in use.")


class UpstreamsDown(UpstreamError):
    """All that could answer have failed too often of late, and are left alone for a while.

    wait: seconds until one of them is asked again.
    """

    status = 503
    code = "upstream_unavailable"
    sent = False

    def __init__(self, wait: float) -> None:
        super().__init__("No upstream service can take this call at present.")
        self.retry_after = max(1, math.ceil(wait))


class UpstreamTimeout(UpstreamError):
    """`waited_for` is one of connect, pool, write, first_byte, idle, total."""

    status = 504
    code = "upstream_timeout"

    def __init__(self, waited_for: str) -> None:
        super().__init__("The upstream service did not answer in time.")
        self.waited_for = waited_for
        self.ours = waited_for == "total"
        self.sent = waited_for not in ("connect", "pool", "write")
