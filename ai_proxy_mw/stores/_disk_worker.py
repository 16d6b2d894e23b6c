"""The thread in which a process works on a directory of `diskcache`."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock, RLock, local
from typing import Any, TypeVar
from weakref import WeakSet

from diskcache import Cache  # type: ignore[import-untyped]
from diskcache.core import DBNAME  # type: ignore[import-untyped]

from ai_proxy_mw.stores._bytes_disk import BytesDisk

T = TypeVar("T")

# What a process had before it forked is kept and never touched in the child: to close what another
# process still uses, or to wait for a thread that is not there, can only do harm.
_inherited: list[object] = []


class DiskWorker:
    """Runs jobs on the cache of a directory, one after the other, off the event loop.

    The directory (mode 0700), its database and the thread are made by the first job, and again
    after a fork and after `aclose`. Several event loops may share it.

    timeout: seconds to wait for transactions of other processes, also when it is opened.
    settings: of diskcache.
    """

    def __init__(self, directory: Path, *, timeout: float, **settings: Any) -> None:
        self._make = partial(_Desk, directory, timeout, settings)
        self._pid = os.getpid()
        self._lock = Lock()
        self._desk: _Desk | None = None

    async def run(self, job: Callable[[Any], T]) -> T:
        """What the job returns for the cache. A job that has begun is not cancelled.

        Raises sqlite3.Error, diskcache.Timeout and OSError, and what the job raises.
        """
        return await asyncio.wrap_future(self._submit(job))

    async def aclose(self) -> None:
        """End the thread and close the database, when what was asked is done."""
        self._look_for_fork()
        with self._lock:
            desk, self._desk = self._desk, None
        if desk is not None:
            await asyncio.wrap_future(desk.end())

    def _submit(self, job: Callable[[Any], T]) -> Future[T]:
        self._look_for_fork()
        with self._lock:  # not between another thread's closing and its shutdown
            if self._desk is None:
                self._desk = self._make()
            return self._desk.submit(job)

    def _look_for_fork(self) -> None:
        if self._pid != os.getpid():
            _inherited.append((self._desk, self._lock))
            self._desk, self._lock, self._pid = None, Lock(), os.getpid()


class _Desk:
    """One thread with one connection to the database."""

    def __init__(self, directory: Path, timeout: float, settings: dict[str, Any]) -> None:
        self._directory = directory
        self._timeout = timeout
        self._settings = settings
        self._cache: Any = None
        self._executor = ThreadPoolExecutor(1, "ai_proxy_mw-disk")
        self._at_work = RLock()
        _desks.add(self)

    def pause(self) -> bool:
        """Begin no further job; whether the one at work has ended in time."""
        return self._at_work.acquire(timeout=self._timeout)

    def resume(self) -> None:
        self._at_work.release()

    def submit(self, job: Callable[[Any], T]) -> Future[T]:
        return self._in_thread(partial(self._work, job))

    def end(self) -> Future[None]:
        closed = self._in_thread(self._close)
        self._executor.shutdown(wait=False)
        return closed

    def _in_thread(self, work: Callable[[], T]) -> Future[T]:
        try:
            return self._executor.submit(work)
        except RuntimeError:
            # The process ends: no thread takes anything any more, but what our own end writes
            # down is still to be written, and there is nobody left to be kept waiting.
            return _done_here(work)

    def _work(self, job: Callable[[Any], T]) -> T:
        with self._at_work:
            return self._done(job)

    def _done(self, job: Callable[[Any], T]) -> T:
        if self._cache is None:
            self._cache = self._open()
        try:
            return job(self._cache)
        except sqlite3.Error as error:
            # A transaction may be half open, or a good file stand where a broken one was.
            self._close()
            # diskcache rolls back also what SQLite has rolled back, and so hides what went wrong.
            if isinstance(error.__context__, sqlite3.Error):
                raise error.__context__ from None
            raise

    def _close(self) -> None:
        with self._at_work:
            cache, self._cache = self._cache, None
            if cache is not None:
                cache.close()

    def _open(self) -> Any:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / DBNAME
        if not path.exists():
            _create_private(path)
        # diskcache tries for a minute to write its settings while another holds the lock.
        probe = sqlite3.connect(path, timeout=self._timeout, isolation_level=None)
        try:
            probe.execute("BEGIN IMMEDIATE")
        finally:
            probe.close()
        return Cache(self._directory, timeout=self._timeout, disk=BytesDisk, **self._settings)


def _done_here(work: Callable[[], T]) -> Future[T]:
    done: Future[T] = Future()
    try:
        done.set_result(work())
    except Exception as error:  # noqa: BLE001 - whoever awaits it raises it
        done.set_exception(error)
    return done


def _create_private(path: Path) -> None:
    """An empty file for its owner only; SQLite gives the files beside it the same mode.

    It gets its name by a link and is never open under it: whoever closes a file gives up all locks
    that his process has on it, also those of another connection.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    os.close(descriptor)
    try:
        os.link(name, path)
    except FileExistsError:
        pass  # another process was first
    finally:
        Path(name).unlink()


_desks: WeakSet[_Desk] = WeakSet()


class _Fork(local):
    """The desks that a forking thread has paused."""

    def __init__(self) -> None:
        self._paused: list[_Desk] = []

    def begin(self) -> None:
        # SQLite keeps in the process's memory who holds its locks. A child that is forked in the
        # middle of a transaction would for ever believe that somebody in it is at work, and wait.
        self._paused = [desk for desk in list(_desks) if desk.pause()]

    def end(self) -> None:
        while self._paused:
            self._paused.pop().resume()


_fork = _Fork()
os.register_at_fork(before=_fork.begin, after_in_parent=_fork.end, after_in_child=_fork.end)
