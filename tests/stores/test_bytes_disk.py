"""Numbers and bytes go in and come out; nothing else does either."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diskcache import Cache  # type: ignore[import-untyped]

from ai_proxy_mw.stores._bytes_disk import BytesDisk

LARGE = bytes(range(256)) * 1000


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Any]:
    with Cache(tmp_path / "cache", disk=BytesDisk, disk_min_file_size=1000) as cache:
        yield cache


def _plant(cache: Any, **columns: object) -> None:
    assignments = ", ".join(f"{name} = ?" for name in columns)
    cache._sql(f"UPDATE Cache SET {assignments}", tuple(columns.values()))


def _file(cache: Any) -> Path:
    (path,) = Path(cache.directory).rglob("*.val")
    return path


@pytest.mark.parametrize("value", [0, -(2**63), 2**63 - 1, b"", b"\0\xff", LARGE])
def test_what_goes_in_comes_out(cache: Any, value: object) -> None:
    cache.set("ключ\0", value)
    assert cache.get("ключ\0") == value
    assert list(cache) == ["ключ\0"]
    cache.set("ключ\0", 5)
    assert cache.get("ключ\0") == 5
    assert not list(Path(cache.directory).rglob("*.val"))


def test_large_bytes_are_in_a_file_of_their_own(cache: Any) -> None:
    mask = os.umask(0)
    try:
        cache.set("a", LARGE)
    finally:
        os.umask(mask)
    path = _file(cache)
    assert path.read_bytes() == LARGE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (path.parent, path.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with cache.read("a") as opened:
        assert opened.read() == LARGE
    assert cache.delete("a")
    assert not path.exists()
    cache.set("a", LARGE)
    _file(cache).unlink()
    assert cache.get("a") is None


@pytest.mark.parametrize("value", ["text", 1.5, True, None, [1], bytearray(b"a"), {"a": 1}])
def test_other_values_are_refused(cache: Any, value: object) -> None:
    with pytest.raises(TypeError, match="int or bytes"):
        cache.set("a", value)
    assert len(cache) == 0


def test_numbers_that_would_need_a_pickle_are_refused(cache: Any) -> None:
    for value in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError, match="64 bits"):
            cache.set("a", value)


def test_open_files_are_refused(cache: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with path.open("rb") as file, pytest.raises(TypeError, match="only bytes"):
        cache.set("a", file, read=True)


@pytest.mark.parametrize("key", [1, b"a", 1.5, None, ("a",)])
def test_other_keys_are_refused(cache: Any, key: object) -> None:
    for use in (lambda: cache.set(key, 1), lambda: cache.get(key), lambda: key in cache):
        with pytest.raises(TypeError, match="keys are str"):
            use()


BOMB = b"cos\nmkdir\n(V%b\ntR."


@pytest.mark.parametrize(
    ("columns", "ask"),
    [
        ({"mode": 4, "value": BOMB}, lambda cache: cache.get("a")),
        ({"mode": 4, "value": BOMB}, lambda cache: cache.pop("a")),
        ({"mode": 4, "value": None, "filename": "bomb"}, lambda cache: cache.get("a")),
        ({"mode": 3, "value": None, "filename": "bomb"}, lambda cache: cache.get("a")),
        ({"mode": 1, "value": "text"}, lambda cache: cache.get("a")),
        ({"mode": 1, "value": 1.5}, lambda cache: cache.get("a")),
        ({"mode": 1, "value": None}, lambda cache: cache.get("a")),
        ({"mode": 9, "value": b"a"}, lambda cache: cache.get("a")),
        ({"raw": 0, "key": BOMB}, list),
        ({"raw": 0, "key": BOMB}, lambda cache: list(cache.iterkeys())),
        ({"raw": 1, "key": BOMB}, list),
    ],
)
def test_what_is_planted_is_an_error_and_is_not_unpickled(
    cache: Any, tmp_path: Path, columns: dict[str, object], ask: Callable[[Any], object]
) -> None:
    trap = tmp_path / "sprung"
    armed = BOMB % str(trap).encode()
    (Path(cache.directory) / "bomb").write_bytes(armed)
    cache.set("a", 1)
    _plant(cache, **{name: armed if value == BOMB else value for name, value in columns.items()})
    with pytest.raises(sqlite3.DatabaseError):
        ask(cache)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "aa/bb/../../../secret", None, b"a"])
def test_a_planted_file_name_leads_nowhere(cache: Any, tmp_path: Path, name: object) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    cache.set("a", 1)
    _plant(cache, mode=2, value=None, filename=name)
    with pytest.raises(sqlite3.DatabaseError, match="none of its own"):
        cache.get("a")
    if name is not None:
        with pytest.raises(sqlite3.DatabaseError, match="none of its own"):
            cache.delete("a")
    assert secret.exists()


@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_stands_in_the_place_of_a_file_is_not_read(
    cache: Any, tmp_path: Path, kind: str
) -> None:
    cache.set("a", LARGE)
    path = _file(cache)
    path.unlink()
    if kind == "link":
        (tmp_path / "secret").write_bytes(LARGE)
        path.symlink_to(tmp_path / "secret")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = len(list(Path("/dev/fd").iterdir()))
    assert cache.get("a") in (None, b"")
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_value_that_does_not_fit_leaves_no_file(cache: Any) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            cache.set("a", LARGE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(Path(cache.directory).rglob("*.val"))
    cache.set("a", LARGE)
    assert cache.get("a") == LARGE


@pytest.mark.parametrize("times", [1, 9, 10])
def test_a_directory_that_another_process_removes(
    cache: Any, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    real = os.open
    failures = iter(range(times))

    def fails_at_first(*arguments: Any) -> int:
        if next(failures, None) is not None:
            raise FileNotFoundError("the directory has just gone")
        return real(*arguments)

    monkeypatch.setattr(os, "open", fails_at_first)
    if times < 10:
        cache.set("a", LARGE)
        assert cache.get("a") == LARGE
    else:
        with pytest.raises(FileNotFoundError):
            cache.set("a", LARGE)
