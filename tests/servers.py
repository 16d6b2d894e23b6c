"""Real servers for the tests: in a thread where coverage shall see, else in a process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from werkzeug.serving import WSGIRequestHandler, make_server

ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def serve_asgi(app: Any, **options: Any) -> Iterator[str]:
    """uvicorn in a thread; gives the address as http://127.0.0.1:PORT."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(512)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3, **options)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        _until(lambda: server.started or not thread.is_alive(), "uvicorn's start")
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive(), "uvicorn hangs"


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections, and ends bodies without length by chunks

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of ordinary requests."""


@contextlib.contextmanager
def serve_wsgi(app: Any) -> Iterator[str]:
    """Werkzeug's threaded server in a thread."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Handler)
    server.daemon_threads = True  # type: ignore[attr-defined]
    server.block_on_close = False  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Process:
    """A server in a process of its own."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = url
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()


@contextlib.contextmanager
def serve_process(
    command: Callable[[int], list[str]],
    env: dict[str, str] | None = None,
    *,
    cwd: Path = ROOT,
) -> Iterator[Process]:
    """Runs `python -m` with the words that `command` makes of a port, until it accepts."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *command(port)],
                cwd=cwd,
                env={**os.environ, "HOME": folder, **(env or {})},
                stdout=out,
                stderr=out,
            )
        try:
            _until(lambda: _accepts(port) or process.poll() is not None, "the server's start")
            assert process.poll() is None, log.read_text()
            yield Process(f"http://127.0.0.1:{port}", process, log)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"the server hangs at its end:\n{log.read_text()}") from None


def gunicorn(app: str, *options: str) -> Callable[[int], list[str]]:
    return lambda port: [
        "gunicorn",
        "--no-control-socket",
        "-b",
        f"127.0.0.1:{port}",
        *options,
        app,
    ]


def uvicorn_command(app: str, *options: str) -> Callable[[int], list[str]]:
    return lambda port: ["uvicorn", "--port", str(port), "--log-level", "warning", *options, app]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(ready: Callable[[], bool], what: str, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)
