"""Every error becomes an answer in the OpenAI shape, and every answer gets its request id."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import ClientGone, InternalError, ProxyError, UpstreamError
from ai_proxy_mw._http import Response

if TYPE_CHECKING:
    from ai_proxy_mw._http import Request
    from ai_proxy_mw._types import Handler

logger = logging.getLogger("ai_proxy_mw")


async def errors(request: Request, handler: Handler) -> Response:
    try:
        response = await handler(request)
    except ClientGone:
        raise  # nobody is there to be told
    except ProxyError as error:
        if isinstance(error, UpstreamError):
            logger.warning("%s: %s", request.id, error.code, exc_info=error.__cause__)
        _note(request, error)
        response = answer(request, error)
    except Exception:
        logger.exception("%s: %s %s failed", request.id, request.method, request.path)
        internal = InternalError()
        _note(request, internal)
        response = answer(request, internal)
    response.headers.append((b"x-request-id", request.id.encode("ascii")))
    return response


def _note(request: Request, error: ProxyError) -> None:
    if request.note is not None:
        refused = not isinstance(error, UpstreamError | InternalError)
        request.note.refuse(error.code, refused=refused)


def answer(request: Request, error: ProxyError) -> Response:
    """The response that tells of an error; to HEAD without its body (RFC 9110, section 9.3.2)."""
    body = error.body()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *error.headers(),
        *error.extra,
    ]
    return Response(error.status, headers, b"" if request.method == "HEAD" else body)
