"""Asks a question before anybody does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_proxy_mw._delivery import deliver
from ai_proxy_mw._hook_threads import run_sync
from ai_proxy_mw._http import Request
from ai_proxy_mw._incoming import RequestBody
from ai_proxy_mw.caching.flight import Listener

if TYPE_CHECKING:
    from ai_proxy_mw._http import Response
    from ai_proxy_mw._identity import Identity
    from ai_proxy_mw._types import Handler


async def ask(handler: Handler, endpoint: str, content: bytes, who: Identity) -> None:
    """Have the corridor answer a JSON request of `who`, hear it to its end and see it kept.

    Raises ProxyError where it refuses, and what reading the answer raises.
    """
    request = _request(endpoint, content, who)
    try:
        response = await _answer(handler, request)
        body = response.body
        await deliver(response, _start, _write)
        if isinstance(body, Listener):
            await body.landed()
    finally:
        if request.note is not None:
            request.note.background = True
            request.note.finish(request)


async def _answer(handler: Handler, request: Request) -> Response:
    try:
        return await handler(request)
    except BaseException as error:
        if request.note is not None:
            request.note.fail(error)  # no stage makes an answer of it here
        raise


def _request(endpoint: str, content: bytes, who: Identity) -> Request:
    async def pull() -> tuple[bytes, bool]:
        return content, True

    method, path = endpoint.split(" ")
    length = len(content)
    request = Request(
        method=method,
        path=path,
        query=b"",
        headers=[(b"content-type", b"application/json")] if content else [],
        body=RequestBody(pull, declared=length, limit=length, empty=not content),
        client=None,
        request_id="warm-up",
        run_sync=run_sync,
    )
    request.endpoint = endpoint
    request.identity = who
    request.subject = who.subject
    return request


async def _start(response: Response) -> None:
    pass


async def _write(chunk: bytes, last: bool) -> None:
    pass
