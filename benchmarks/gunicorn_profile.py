"""A gunicorn configuration file that profiles every thread of the worker.

cProfile sees one thread; each thread gets a profile of its own, and they are added up at the end.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import threading
from types import FrameType
from typing import Any

_profiles: list[cProfile.Profile] = []


def _begin(frame: FrameType, event: str, argument: Any) -> None:  # noqa: ARG001 - sys.setprofile's
    """Called at a new thread's first event; the profile takes this function's place."""
    profile = cProfile.Profile()
    _profiles.append(profile)
    profile.enable()


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    threading.setprofile(_begin)


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    threading.setprofile(None)
    if not _profiles:
        return
    total = pstats.Stats(_profiles[0])
    for profile in _profiles[1:]:
        total.add(pstats.Stats(profile))
    total.dump_stats(os.environ["BENCHMARK_PROFILE"])
