"""Serves a row's application with uvicorn on a socket that the runner has bound."""

from __future__ import annotations

import argparse
import cProfile
import signal
import socket
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn


def application(module: str, upstream: str) -> Any:
    """The application of `benchmarks.apps.<module>`; the sketch lives beside the runner."""
    package = "benchmarks" if module == "sketch" else "benchmarks.apps"
    return import_module(f"{package}.{module}").make(upstream)


def _serve(app: Any, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
    uvicorn.Server(config).run(sockets=[listener])


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
    raise SystemExit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="a bound socket")
    parser.add_argument("--module", required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--profile", type=Path, help="write a cProfile dump here at the end")
    chosen = parser.parse_args()
    app = application(chosen.module, chosen.upstream)
    listener = socket.socket(fileno=chosen.fd)
    if chosen.profile is None:
        _serve(app, listener)
        return
    # uvicorn sends itself the signal again once it has stopped; the dump must come before death.
    signal.signal(signal.SIGTERM, _leave)
    profile = cProfile.Profile()
    try:
        profile.runcall(_serve, app, listener)
    finally:
        profile.dump_stats(chosen.profile)


if __name__ == "__main__":
    main()
