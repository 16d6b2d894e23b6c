"""Bodies of any size pass without being held."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from ai_proxy_mw.testing import FakeUpstream
from tests.forms import END, HEADERS, opening
from tests.servers import gunicorn, serve_process, uvicorn_command

pytestmark = pytest.mark.slow

MIB = 1 << 20
SIZE = 200 * MIB
PROMISED_GROWTH = 20 * MIB

SERVERS = {
    "uvicorn": uvicorn_command("tests.apps.fastapi_app:app"),
    "gunicorn-sync": gunicorn("tests.apps.flask_app:app", "-k", "sync", "--timeout", "120"),
    "gunicorn-gthread": gunicorn("tests.apps.flask_app:app", "-k", "gthread", "--threads", "4"),
}


class Peak:
    """The most memory that a process and its children held while we looked."""

    def __init__(self, pid: int) -> None:
        root = psutil.Process(pid)
        self._processes = [root, *root.children(recursive=True)]
        self._stop = threading.Event()
        self._peak = 0
        self.start = self._now()

    def _now(self) -> int:
        return sum(process.memory_info().rss for process in self._processes)

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            self._peak = max(self._peak, self._now())

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    @property
    def growth(self) -> int:
        return self._peak - self.start


def _form(size: int) -> Iterator[bytes]:
    """An upload of a file of so many bytes."""
    yield opening(purpose="batch")
    piece = bytes(64 * 1024)
    for _ in range(size // len(piece)):
        yield piece
    yield END


def _upload(v1: str, size: int) -> httpx.Response:
    headers = {**HEADERS, "content-length": str(sum(map(len, _form(size))))}
    return httpx.post(f"{v1}/files", content=_form(size), headers=headers, timeout=120)


def _download(v1: str) -> str:
    digest = hashlib.sha256()
    with httpx.stream("GET", f"{v1}/files/file-1/content", timeout=120) as response:
        for piece in response.iter_raw():
            digest.update(piece)
    return digest.hexdigest()


@pytest.mark.parametrize("server", SERVERS)
def test_200_mb_pass_each_way_in_little_memory(server: str, tmp_path: Path) -> None:
    fake = FakeUpstream(keep_body=0, download_bytes=MIB)
    with fake.serve() as upstream:
        env = {
            "AI_PROXY_UPSTREAM": upstream.base_url,
            "AI_PROXY_ANONYMOUS": "1",
            "AI_PROXY_MAX_BODY": "512M",
        }
        with serve_process(SERVERS[server], env) as process:
            v1 = f"{process.url}/v1"
            _upload(v1, MIB)
            _download(v1)
            fake.download_bytes = SIZE
            peak = Peak(process.process.pid)
            with peak.watching():
                _upload(v1, SIZE)
                digest = _download(v1)
    whole = hashlib.sha256()
    for piece in fake.download():
        whole.update(piece)
    assert digest == whole.hexdigest()
    seen = fake.requests[2]
    sent = hashlib.sha256()
    for piece in _form(SIZE):
        sent.update(piece)
    assert seen.body_size == sum(map(len, _form(SIZE)))
    assert seen.sha256 == sent.hexdigest()
    assert peak.growth < PROMISED_GROWTH
