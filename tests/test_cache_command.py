"""The command line's look into a cache: it shows nothing raw, and forgets just what was named."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ai_proxy_mw.__main__ as cli
from ai_proxy_mw import DiskCache
from ai_proxy_mw.caching.entry import Entry, encode
from ai_proxy_mw.caching.tags import tag_of

Command = Callable[..., tuple[int, list[str], str]]

CREATED = 1_700_000_000.0
BODY = b"\x1b]0;owned\x07"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs one; its exit code, the lines it prints, and what it complains of."""

    def run(*arguments: str) -> tuple[int, list[str], str]:
        try:
            code = cli.main(["cache", *arguments])
        except SystemExit as end:
            code = int(str(end.code))
        shown = capsys.readouterr()
        return code, shown.out.splitlines(), shown.err

    return run


async def _fill(cache: DiskCache) -> None:
    for number, (subject, model) in enumerate(
        [("alice", "fake-1"), ("alice", "fake-2"), ("bob", "fake-1")]
    ):
        key = f"e:app:{number}"
        entry = Entry(
            key=key,
            created=CREATED,
            ttl=90,
            status=200,
            headers=[],
            endpoint="chat/completions",
            model=model,
            body=BODY,
        )
        tags = [
            tag_of("subject", subject),
            tag_of("endpoint", "chat/completions"),
            tag_of("model", model),
        ]
        await cache.set(key, encode(entry), ttl=600, tags=tags)
    await cache.set("x:other", b"no entry", ttl=600, tags=[tag_of("subject", "alice")])
    assert await cache.lock("e:app:9", "me", lease=600) == "me"


def _play(directory: Path, job: Callable[[DiskCache], Any]) -> Any:
    async def main() -> Any:
        cache = DiskCache(directory)
        try:
            return await job(cache)
        finally:
            await cache.aclose()

    return asyncio.run(main())


@pytest.fixture
def where(tmp_path: Path) -> str:
    _play(tmp_path / "cache", _fill)
    return str(tmp_path / "cache")


def _keys(where: str) -> set[str]:
    async def ask(cache: DiskCache) -> set[str]:
        return {key async for key in cache.keys("")}

    found: set[str] = _play(Path(where), ask)
    return found


def test_how_much_there_is(command: Command, where: str) -> None:
    code, lines, _ = command("stats", where)
    assert code == 0
    assert len(lines) == 1
    entries, _, size, unit = lines[0].split()
    assert (entries, unit) == ("4", "bytes")
    assert int(size) > 100


def test_what_there_is(command: Command, where: str) -> None:
    code, lines, _ = command("list", where)
    assert code == 0
    shown = sorted(line.split("\t") for line in lines)
    assert [line[0] for line in shown] == ["e:app:0", "e:app:1", "e:app:2"]
    assert int(shown[0][1]) > len(BODY)
    assert shown[1][2:] == [
        "200",
        "chat/completions",
        "fake-2",
        "2023-11-14T22:13:20+00:00",
        "90",
    ]


def test_nothing_is_shown_raw(command: Command, where: str) -> None:
    model = "\x1b[2J\u202e\r\n\te\x9b"

    async def plant(cache: DiskCache) -> None:
        entry = Entry(
            key="e:0", created=CREATED, ttl=1, status=200, headers=[], endpoint="\x7f", model=model
        )
        await cache.purge()
        await cache.set("e:0", encode(entry), ttl=600)
        await cache.set("e:1", b"\x1b]0;owned\x07\n", ttl=600)
        await cache.set("e:\x1b[2J", b"", ttl=600)

    _play(Path(where), plant)
    code, lines, _ = command("list", where)
    assert code == 0
    shown = [line.split("\t") for line in lines]
    assert sorted(line[0] for line in shown) == ["e:0", "e:1", "e:\\x1b[2J"]
    assert all(line.replace("\t", "").isascii() for line in lines)
    assert all(line.replace("\t", "").isprintable() for line in lines)
    assert {line[0]: line[2] for line in shown}["e:1"] == "not readable"


def test_what_goes_while_it_is_listed(
    command: Command, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(self: DiskCache, key: str) -> None:
        return None

    monkeypatch.setattr(DiskCache, "get", gone)
    assert command("list", where) == (0, [], "")


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        (["--subject", "alice"], {"e:app:2", "x:other"}),
        (["--subject", "ali"], {"e:app:0", "e:app:1", "e:app:2", "x:other"}),
        (["--model", "fake-1"], {"e:app:1", "x:other"}),
        (["--endpoint", "chat/completions"], {"x:other"}),
        (["--key", "e:app:1"], {"e:app:0", "e:app:2", "x:other"}),
        (["--key", "e:app:"], {"e:app:0", "e:app:1", "e:app:2", "x:other"}),
        (["--all"], {"x:other"}),
    ],
)
def test_what_is_forgotten(command: Command, where: str, choice: list[str], left: set[str]) -> None:
    count = 4 - len(left)
    assert command("purge", where, *choice) == (0, [f"{count} entries purged"], "")
    assert _keys(where) == left


@pytest.mark.parametrize(
    ("choice", "complaint"),
    [
        ([], "one of the arguments --subject --endpoint --model --key --all is required"),
        (["--subject", "alice", "--model", "fake-1"], "not allowed with argument --subject"),
        (["--all", "--key", "e:app:1"], "not allowed with argument --all"),
        (["--key", "x:other"], "keys of entries begin with e:"),
    ],
)
def test_what_must_be_said_more_clearly(
    command: Command, where: str, choice: list[str], complaint: str
) -> None:
    code, lines, complaints = command("purge", where, *choice)
    assert (code, lines) == (2, [])
    assert complaint in complaints
    assert len(_keys(where)) == 4


@pytest.mark.parametrize("action", [["stats"], ["list"], ["purge", "--all"]])
def test_a_directory_without_a_cache_is_not_made_one(
    command: Command, tmp_path: Path, action: list[str]
) -> None:
    for place in (tmp_path, tmp_path / "new", tmp_path / "\x1b[2J"):
        code, lines, complaints = command(*action, str(place))
        assert (code, lines) == (2, [])
        assert "there is no cache" in complaints
        assert "\x1b" not in complaints
    assert list(tmp_path.iterdir()) == []


def test_a_broken_one_is_said(command: Command, tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_bytes(b"no database at all" * 1000)
    expected = "the store does not answer: DatabaseError\n"
    assert command("list", str(tmp_path)) == (1, [], expected)


@pytest.mark.parametrize("url", ["redis://:secret@localhost", "redis+cluster://a,b", "valkey://a"])
def test_a_url_is_one_of_redis(
    command: Command, where: str, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    given: list[str] = []

    def opens(url: str) -> DiskCache:
        given.append(url)
        return DiskCache(where)

    module = SimpleNamespace(RedisCache=opens)
    monkeypatch.setitem(sys.modules, "ai_proxy_mw.stores.redis_cache", module)
    code, lines, _ = command("list", url)
    assert (code, len(lines), given) == (0, 3, [url])

    def fails(url: str) -> DiskCache:
        raise ConnectionError(url)

    module.RedisCache = fails
    code, lines, complaints = command("list", url)
    assert (code, lines) == (1, [])
    assert complaints == "the store does not answer: ConnectionError\n"
