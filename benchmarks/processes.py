"""Starts the processes of a run and stops them again."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.cpu import cores, family, pin
from benchmarks.payloads import CALLER_KEY, HOST, MARK, QUESTION, request
from benchmarks.rows import Row

_START = 60.0  # seconds that a server may take to its first answer; LiteLLM needs many
_STOP = 15.0  # seconds that it may take to leave
_FILES = 8192  # open files: 1,000 streams need two each


class Served(NamedTuple):
    """A server that answers."""

    pid: int
    port: int

    @property
    def pids(self) -> list[int]:
        return family(self.pid)


def allow_many_files() -> None:
    """Raise the limit of open files for this process and those it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _command(row: Row, fd: int, upstream: str, profile: Path | None) -> list[str]:
    if row.server == "uvicorn":
        command = [sys.executable, "-m", "benchmarks.serve", "--fd", str(fd)]
        command += ["--module", row.module, "--upstream", upstream]
        return command if profile is None else [*command, "--profile", str(profile)]
    command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{fd}", "--workers", "1"]
    command += ["--worker-class", row.server, "--log-level", "warning", "--no-control-socket"]
    command += ["--graceful-timeout", "5"]
    if row.server == "gthread":
        command += ["--threads", str(row.threads)]
    if profile is not None:
        command += ["--config", "python:benchmarks.gunicorn_profile"]
    return [*command, f"benchmarks.apps.{row.module}:make({upstream!r})"]


def _litellm(port: int, upstream: str, directory: Path) -> list[str]:
    model = {"model": "openai/bench", "api_base": f"{upstream}/v1", "api_key": "sk-upstream"}
    config = {
        "model_list": [{"model_name": "bench", "litellm_params": model}],
        "general_settings": {"master_key": CALLER_KEY},
    }
    path = directory / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    command = Path(sys.executable).with_name("litellm")
    return [str(command), "--config", str(path), "--host", HOST, "--port", str(port)]


def _bound() -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, 0))
    return listener


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _running(
    command: list[str], *, fd: int | None, core: set[int], env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        pass_fds=() if fd is None else (fd,),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env={**os.environ, **(env or {})},
        preexec_fn=lambda: pin(0, core),  # noqa: PLW1509 - no threads run yet; children inherit it
    )
    try:
        yield process
    finally:
        _stop(process)


@contextlib.contextmanager
def upstream() -> Iterator[str]:
    """The mock upstream; gives its URL."""
    with _bound() as listener:
        listener.listen(2048)
        port = listener.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.upstream", "--fd", str(listener.fileno())]
        with _running(command, fd=listener.fileno(), core=cores()[1]) as process:
            listener.close()  # the child has its own; a dead child must refuse
            _await_answer(process, port)
            yield f"http://{HOST}:{port}"


@contextlib.contextmanager
def serving(row: Row, upstream_url: str, profile: Path | None = None) -> Iterator[Served]:
    """The row's server on a core of its own, once it has given a right answer."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_bound())
        port = listener.getsockname()[1]
        env = {} if profile is None else {"BENCHMARK_PROFILE": str(profile)}
        if row.server == "litellm":
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            command = _litellm(port, upstream_url, directory)
            fd = None
            listener.close()
        else:
            listener.listen(2048)
            fd = listener.fileno()
            command = _command(row, fd, upstream_url, profile)
        process = stack.enter_context(_running(command, fd=fd, core=cores()[0], env=env))
        listener.close()
        _await_answer(process, port)
        yield Served(process.pid, port)


def _await_answer(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"a server ended with {process.returncode}; its log is above")
        if _answers(port):
            return
        time.sleep(0.05)
    raise RuntimeError(f"a server gave no right answer within {_START:.0f} s")


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            connection.sendall(request("POST", "/v1/chat/completions", QUESTION))
            return _has_mark(connection)
    except OSError:
        return False


def _has_mark(connection: socket.socket) -> bool:
    received = b""
    while piece := connection.recv(65_536):
        received += piece
        if MARK in received:
            return True
    return False


def run_on_load_core(command: list[str], timeout: float) -> bytes:
    """Run a command beside the mock upstream; returns what it wrote to stdout."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        timeout=timeout,
        preexec_fn=lambda: pin(0, cores()[1]),
    )
    return done.stdout
