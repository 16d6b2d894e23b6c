"""Looking hosts up: bounded, checked, and with the machine's own resolver out of the way."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from ai_proxy_mw.fetching.addresses import is_public
from ai_proxy_mw.fetching.fetcher import Fetcher
from ai_proxy_mw.fetching.look_up import MAX_ADDRESSES, THREADS, SystemResolver, addresses
from tests.fetching._helpers import HOST, Names, fetching, images, judge, refused
from tests.transport._harness import in_loop


@in_loop
async def test_the_families_take_turns() -> None:
    names = Names(["2606:4700::1", "2606:4700::2", "8.8.8.8", "2606:4700::1"])
    found = await addresses(names, HOST, 443, is_public)
    assert [str(address) for address in found] == ["2606:4700::1", "8.8.8.8", "2606:4700::2"]


@in_loop
async def test_a_host_without_addresses() -> None:
    with refused("image_unreachable"):
        await addresses(Names([]), HOST, 443, is_public)


@in_loop
async def test_a_host_with_too_many() -> None:
    many = [f"8.8.{number // 256}.{number % 256}" for number in range(5000)]
    with refused("image_unreachable"):
        await addresses(Names(many), HOST, 443, is_public)
    with refused("image_unreachable"):
        await addresses(Names(many[: MAX_ADDRESSES + 1]), HOST, 443, is_public)
    found = await addresses(Names(many[:MAX_ADDRESSES]), HOST, 443, is_public)
    assert len(found) == MAX_ADDRESSES


@pytest.mark.parametrize("error", [socket.gaierror(-2, "unknown"), OSError(), TimeoutError()])
def test_a_host_that_is_not_found(error: OSError) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise error

    @in_loop
    async def test() -> None:
        async with fetching(resolve) as fetcher:
            with refused("image_unreachable") as caught:
                await fetcher.fetch(f"http://{HOST}/")
        assert caught.value.message == "The picture could not be fetched: its host was not found."

    test()


@in_loop
async def test_a_look_up_that_never_ends() -> None:
    ended = asyncio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()
        raise AssertionError

    async with fetching(resolve, timeout=0.05) as fetcher:
        with refused("image_unreachable") as caught:
            await fetcher.fetch(f"http://{HOST}/")
    assert ended.is_set()
    assert caught.value.message.endswith("it did not come within 0.05 s.")


@in_loop
async def test_the_systems_resolver() -> None:
    asked: list[tuple[object, ...]] = []

    def getaddrinfo(*args: object, **rest: object) -> list[Any]:
        asked.append((*args, rest, threading.current_thread().name))
        stream = (socket.SOCK_STREAM, 6, "")
        return [
            (socket.AF_INET6, *stream, ("2606:4700::1", 443, 0, 0)),
            (socket.AF_INET, *stream, ("8.8.8.8", 443)),
        ]

    resolver = SystemResolver(getaddrinfo)
    assert await resolver(HOST, 443) == ["2606:4700::1", "8.8.8.8"]
    resolver.close()
    # Absolute, so that no search list makes another name of it; in a thread of its own.
    (call,) = asked
    assert call[:3] == (b"cdn.example.com.", 443, {"type": socket.SOCK_STREAM})
    assert str(call[3]).startswith("ai_proxy_mw-look-up")


@in_loop
async def test_the_systems_resolver_finds_nothing() -> None:
    resolver = SystemResolver()
    with pytest.raises(OSError, match=r"."):
        await resolver("a" * 64, 443)  # cannot be a name: nobody is asked
    resolver.close()


@in_loop
async def test_slow_look_ups_take_no_threads_from_the_app() -> None:
    slow = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        slow.wait(20)
        return []

    resolver = SystemResolver(getaddrinfo)
    async with fetching(resolver, timeout=0.2, max_concurrent=100) as fetcher:
        calls = [asyncio.create_task(fetcher.fetch(f"http://{HOST}/")) for _ in range(50)]
        for call in calls:
            with refused("image_unreachable"):
                await call
        assert await asyncio.to_thread(lambda: 7) == 7
        running = [each for each in threading.enumerate() if "look-up" in each.name]
        assert len(running) == THREADS
    slow.set()
    resolver.close()


class _OfflineLoop(asyncio.SelectorEventLoop):
    """Looks nothing up, and remembers what it was to call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        self.calls.append((func, *args))
        return super().run_in_executor(executor, lambda: ["127.0.0.1"])


def test_without_a_resolver_the_system_is_asked() -> None:
    loop = _OfflineLoop()

    async def test() -> None:
        fetcher = Fetcher(images(), judge=judge)
        await fetcher.aclose()  # before it has been used
        with refused("image_url_forbidden"):
            await fetcher.fetch(f"http://{HOST}/")
        await fetcher.aclose()

    in_loop(test, loop_factory=lambda: loop)()
    ((function, *args),) = loop.calls
    assert isinstance(function.__self__, SystemResolver)
    assert args == [HOST, 80]
