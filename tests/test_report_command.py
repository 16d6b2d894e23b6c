"""The report: spend by model, what it would have cost elsewhere, and nothing raw on a terminal."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import ai_proxy_mw.__main__ as cli
from ai_proxy_mw import CacheStore, DiskCache, RedisCache
from ai_proxy_mw.accounting.record import Record
from ai_proxy_mw.metrics.stats import Stats
from tests.metrics.calls import call
from tests.redis_servers import redis_executable, serve_redis

Command = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs one; its exit code, the lines it prints, and what it complains of."""

    def run(*arguments: str) -> tuple[int, list[str], str]:
        try:
            code = cli.main(["report", *arguments])
        except SystemExit as end:
            code = int(str(end.code))
        shown = capsys.readouterr()
        return code, shown.out.splitlines(), shown.err

    return run


def fill(directory: Path, *records: Record, name: str = "default") -> str:
    _fill(DiskCache(directory), *records, name=name)
    return str(directory)


def _fill(store: CacheStore, *records: Record, name: str = "default") -> None:
    async def main() -> None:
        stats = Stats(name=name, store=store)
        for record in records:
            stats.add(record)
        await stats.aclose()
        await store.aclose()

    asyncio.run(main())


NOTHING = {"input_tokens": 0, "output_tokens": 0, "cost": 0}


@pytest.fixture
def where(tmp_path: Path) -> str:
    big = call(input_tokens=1_000_000, output_tokens=200_000, cost=9_600_000)
    return fill(
        tmp_path / "cache",
        big,
        big,
        call(model="deepseek-v3.2", input_tokens=1000, output_tokens=500, cost=1260, cache="miss"),
        call(model="house-model", cost=None),
        call(**NOTHING, cache="hit", saved=4000, saved_tokens=150),
        call(**NOTHING, model=None, endpoint="GET /models"),
    )


def test_the_tables(command: Command, where: str) -> None:
    code, lines, complaints = command(where)
    assert (code, complaints) == (0, "")
    assert lines == [
        "Spend by model, last 24h",
        "",
        "model          requests      input  cached   output              cost",
        "gpt-4.1               3  2,000,000       0  400,000            $19.20",
        "deepseek-v3.2         1      1,000       0      500           $0.0013",
        "(none)                1          0       0        0           $0.0000",
        "house-model           1        100       0       50           unknown",
        "(total)               6  2,001,100       0  400,550  $19.20 + unknown",
        "",
        "The cache answered 1 of 2 calls (50%) and saved $0.0040 and 150 tokens.",
        "",
        "What the same tokens would have cost on other models",
        "",
        "tokens of          gpt-4.1  deepseek-v3.2  house-model",
        "as it was           $19.20        $0.0013      unknown",
        "claude-sonnet-4     $12.00        $0.0105      $0.0010",
        "claude-sonnet-4.5   $60.00        $0.0525      $0.0053",
        "deepseek-v3.2      $1.5120                     $0.0001",
        "gemini-2.5-flash   $9.0000        $0.0075      $0.0008",
        "gpt-4.1                           $0.0120      $0.0012",
        "gpt-4.1-turbo      $7.2000        $0.0060      $0.0006",
    ]


def test_as_json(command: Command, where: str) -> None:
    code, lines, _ = command(where, "--json", "--window", "30d")
    assert (code, len(lines)) == (0, 1)
    found = json.loads(lines[0])
    assert found["report"]["rows"]["gpt-4.1"]["cost"] == 19_200_000
    assert found["report"]["window"] == "30d"
    assert found["elsewhere"]["gpt-4.1"]["claude-sonnet-4"] == 12_000_000
    assert "gpt-4.1" not in found["elsewhere"]["gpt-4.1"]
    assert "" not in found["elsewhere"]


def test_cached_tokens_cost_what_they_cost_there(command: Command, tmp_path: Path) -> None:
    place = fill(tmp_path / "c", call(input_tokens=1000, cached_input_tokens=600, output_tokens=10))
    prices = tmp_path / "prices.toml"
    prices.write_text('["my-model"]\ninput = 2.0\noutput = 5\ncached_input = 0.5\n')
    found = json.loads(command(place, "--json", "--prices", str(prices))[1][0])
    assert found["elsewhere"]["gpt-4.1"]["my-model"] == 400 * 2 + 600 // 2 + 50
    prices = tmp_path / "prices.json"
    prices.write_text(
        '{"my-*": {"input": 1, "output": 1}, "gpt-4.1-turbo": {"input": 0, "output": 0}}'
    )
    found = json.loads(command(place, "--json", "--prices", str(prices))[1][0])
    assert found["elsewhere"]["gpt-4.1"]["my-*"] == 1010
    assert found["elsewhere"]["gpt-4.1"]["gpt-4.1-turbo"] == 0


def test_what_is_not_known_is_no_zero(command: Command, tmp_path: Path) -> None:
    hit = call(**NOTHING, cache="hit", saved=None, saved_tokens=7)
    lines = command(fill(tmp_path / "c", hit))[1]
    assert lines[-1] == "The cache answered 1 of 1 calls (100%) and saved unknown and 7 tokens."
    lines = command(fill(tmp_path / "d", hit, call(cache="stale", saved=20_000_000)))[1]
    assert "saved $20.00 + unknown and 7 tokens." in "\n".join(lines)


def test_without_a_cache(command: Command, tmp_path: Path) -> None:
    assert "The cache was not asked." in command(fill(tmp_path / "c", call()))[1]


def test_all_others(command: Command, tmp_path: Path) -> None:
    place = fill(tmp_path / "c", *[call(model=f"m{number}") for number in range(250)])
    lines = command(place)[1]
    assert lines[-1].startswith("gpt-4.1-turbo")
    assert any(line.startswith("(all others)        50") for line in lines)


def test_nothing_is_shown_raw(command: Command, tmp_path: Path) -> None:
    names = ["\x1b]0;owned\x07", "\x1b[2J\u202e\r\n\t\x9b", "long" * 60]
    place = fill(tmp_path / "c", *[call(model=name) for name in names])
    code, lines, _ = command(place)
    assert code == 0
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert any(line.startswith("\\x1b]0;owned\\x07 ") for line in lines)
    assert max(map(len, lines)) < 160
    assert command(place, "--json")[1][0].isprintable()


def test_of_another_app(command: Command, where: str) -> None:
    expected = ["no calls in the last 1h; is it another app's --name?"]
    assert command(where, "--name", "shop", "--window", "1h") == (0, expected, "")
    fill(Path(where), call(), name="shop")
    assert "Spend by model, last 1h" in command(where, "--name", "shop", "--window", "1h")[1]


def test_a_directory_without_statistics_is_left_as_it_is(command: Command, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "new", tmp_path / "\x1b[2J"):
        code, lines, complaints = command(str(place))
        assert (code, lines) == (2, [])
        assert "there are no statistics" in complaints
        assert "\x1b" not in complaints
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", "{"),
        ("p.json", "[]"),
        ("p.json", '{"m": 1}'),
        ("p.json", '{"m": {"input": 1}}'),
        ("p.json", '{"m": {"input": -1, "output": 1}}'),
        ("p.toml", "m = ["),
        ("p.toml", "[m]\ninput = 1\noutput = 1\nwhat = 1\n"),
    ],
)
def test_wrong_prices(command: Command, where: str, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    code, lines, complaints = command(where, "--prices", str(tmp_path / name))
    assert (code, lines) == (2, [])
    assert "write" in complaints


def test_prices_that_are_not_there(command: Command, where: str, tmp_path: Path) -> None:
    code, lines, complaints = command(where, "--prices", str(tmp_path / "\x1b"))
    assert (code, lines) == (2, [])
    assert "FileNotFoundError" in complaints
    assert "\x1b" not in complaints


def test_a_store_that_is_broken_or_down(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stats").mkdir()
    (tmp_path / "stats" / "cache.db").write_bytes(b"no database at all" * 1000)
    assert command(str(tmp_path)) == (1, [], "the store does not answer\n")

    def fails(url: str) -> DiskCache:
        raise ConnectionError(url)

    module = SimpleNamespace(RedisCache=fails)
    monkeypatch.setitem(sys.modules, "ai_proxy_mw.stores.redis_cache", module)
    complaint = "the store does not answer: ConnectionError\n"
    assert command("redis://:secret@localhost") == (1, [], complaint)


def test_a_url_is_one_of_redis(
    command: Command, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def opens(url: str) -> DiskCache:
        given.append(url)
        return DiskCache(where)

    module = SimpleNamespace(RedisCache=opens)
    monkeypatch.setitem(sys.modules, "ai_proxy_mw.stores.redis_cache", module)
    assert "Spend by model, last 24h" in command("redis+cluster://a,b")[1]
    assert given == ["redis+cluster://a,b"]


@pytest.mark.skipif(redis_executable() is None, reason="no redis-server is installed")
def test_what_is_in_a_real_redis(command: Command) -> None:
    with serve_redis() as server:
        _fill(RedisCache(server.uri), call(cost=2_000_000))
        code, lines, complaints = command(server.uri)
    assert (code, complaints) == (0, "")
    assert any(line.startswith("gpt-4.1 ") and line.endswith("$2.0000") for line in lines)
