"""Pictures that are kept: how long, how many bytes, and for whom."""

from __future__ import annotations

from ai_proxy_mw.fetching.cache import ENTRY, Cache, Fetched
from tests.fetching._helpers import GIF, HOST, PNG, TYPE, fetching, refused
from tests.transport._harness import in_loop
from tests.transport._raw_server import RawServer, closing, ok


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _picture(size: int) -> Fetched:
    return Fetched(bytes(size), "png")


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = Cache(3 * (ENTRY + 101), 60, Clock())
    for name in "abc":
        cache.put(name, _picture(100))
    assert cache.size == 3 * (ENTRY + 101)
    assert cache.get("a")
    cache.put("d", _picture(100))
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]
    cache.put("e", _picture(101))  # a byte more costs two
    assert [name for name in "acde" if cache.get(name)] == ["d", "e"]
    assert cache.size == 2 * ENTRY + 203


def test_what_is_too_large_by_itself_costs_nobody_his_place() -> None:
    cache = Cache(ENTRY + 101, 60, Clock())
    cache.put("a", _picture(100))
    cache.put("b", _picture(101))
    assert cache.get("a")
    assert cache.get("b") is None


def test_nothing_is_kept_by_default() -> None:
    cache = Cache(0, 60, Clock())
    cache.put("a", _picture(0))
    assert cache.get("a") is None


def test_put_again() -> None:
    clock = Clock()
    cache = Cache(4 * ENTRY, 60, clock)
    cache.put("a", _picture(100))
    clock.now += 59
    cache.put("a", _picture(10))
    assert cache.size == ENTRY + 11
    clock.now += 59
    assert cache.get("a") == _picture(10)
    clock.now += 1
    assert cache.get("a") is None
    assert cache.size == 0


def test_clear() -> None:
    cache = Cache(4 * ENTRY, 60, Clock())
    cache.put("a", _picture(100))
    cache.clear()
    assert (cache.get("a"), cache.size) == (None, 0)


def test_a_picture_does_not_show_its_bytes() -> None:
    assert repr(_picture(3)) == "Fetched(format='png')"


@in_loop
async def test_fetched_once_until_it_is_old() -> None:
    clock = Clock()
    first, second = ok(PNG, TYPE), ok(GIF, b"Content-Type: image/gif")
    async with (
        RawServer(closing(first), closing(second)) as server,
        fetching(cache_bytes=1 << 20, cache_ttl=60, clock=clock) as fetcher,
    ):
        url = f"http://{HOST}:{server.port}/a.png"
        assert (await fetcher.fetch(url)).format == "png"
        clock.now += 59
        assert (await fetcher.fetch(url)).data == PNG
        assert server.accepted == 1
        clock.now += 1
        assert (await fetcher.fetch(url)).format == "gif"
        assert (await fetcher.fetch(url + "?")).format == "gif"  # another address
        assert server.accepted == 3
        await fetcher.aclose()
        await fetcher.fetch(url)
        assert server.accepted == 4


@in_loop
async def test_what_failed_is_not_kept() -> None:
    bad = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
    async with (
        RawServer(closing(bad), closing(ok(PNG, TYPE))) as server,
        fetching(cache_bytes=1 << 20) as fetcher,
    ):
        url = f"http://{HOST}:{server.port}/a.png"
        with refused("image_unreachable"):
            await fetcher.fetch(url)
        assert (await fetcher.fetch(url)).data == PNG
