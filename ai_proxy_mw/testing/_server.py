"""The fake as a real HTTP/1.1 server on a port."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ai_proxy_mw.testing._connection import Connection

if TYPE_CHECKING:
    from ai_proxy_mw.testing._exchange import Open
    from ai_proxy_mw.testing._record import Record

_BACKLOG = 1024


class FakeServer:
    """Serves while it is entered, with `with` in its own thread, with `async with` in this loop.

    `url` is its root and `base_url` the one for OpenAI's SDK. Entering raises OSError if the port
    is taken. Leaving breaks off the calls that are under way.
    """

    def __init__(self, open_exchange: Open, record: Record, host: str, port: int) -> None:
        self._open = open_exchange
        self._record = record
        self._host = host
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self.port = port

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def _connect(self) -> Connection:
        return Connection(self._open, self._record, self._connections)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connect, self._host, self.port, backlog=_BACKLOG
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        connections = list(self._connections)
        tasks = [it.task for it in connections if it.task is not None]
        for connection in connections:
            connection.break_off()
        await asyncio.gather(*(it.lost for it in connections))
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def __enter__(self) -> Self:
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live(ready)), name="fake-upstream", daemon=True
        )
        self._thread.start()
        ready.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _live(self, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            await self.__aenter__()
        except OSError as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        await self._stop.wait()
        await self.__aexit__(None, None, None)
