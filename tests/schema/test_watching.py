"""A body shows its pieces to who watches it, before it hands them on."""

from __future__ import annotations

import asyncio

import pytest

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw._incoming import RequestBody


class Diary:
    """Writes down what it is shown; finds the end wrong if told so."""

    def __init__(self, wrong: bool = False) -> None:
        self.seen: list[bytes | str] = []
        self._wrong = wrong

    def feed(self, data: bytes) -> None:
        self.seen.append(data)

    def finish(self) -> None:
        self.seen.append("end")
        if self._wrong:
            raise InvalidRequest("wrong at its end")


def body(*pieces: tuple[bytes, bool], declared: int | None = None) -> RequestBody:
    coming = iter(pieces)

    async def pull() -> tuple[bytes, bool]:
        return next(coming)

    return RequestBody(pull, declared=declared, limit=100)


async def read(watched: RequestBody) -> list[bytes]:
    return [piece async for piece in watched]


def test_each_piece_is_shown_before_it_is_handed_on() -> None:
    async def run() -> None:
        diary = Diary()
        watched = body((b"a", False), (b"b", False), (b"", True))
        watched.watch(diary)
        assert await anext(watched) == b"a"
        assert diary.seen == [b"a"]
        assert await read(watched) == [b"b"]
        assert diary.seen == [b"a", b"b", b"", "end"]

    asyncio.run(run())


@pytest.mark.parametrize("last", [True, False])
def test_the_piece_that_completes_a_declared_body_waits_for_the_verdict(last: bool) -> None:
    async def run() -> None:
        watched = body((b"a", False), (b"b", last), declared=2)
        watched.watch(Diary(wrong=True))
        assert await anext(watched) == b"a"
        with pytest.raises(InvalidRequest):
            await anext(watched)

    asyncio.run(run())


def test_the_end_of_a_body_of_no_length_waits_for_the_verdict() -> None:
    async def run() -> None:
        watched = body((b"a", False), (b"", True))
        watched.watch(Diary(wrong=True))
        assert await anext(watched) == b"a"
        with pytest.raises(InvalidRequest):
            await anext(watched)

    asyncio.run(run())


def test_a_body_that_is_all_there_is_judged_before_it_is_given() -> None:
    async def run() -> None:
        watched = body((b"a", True))
        watched.watch(Diary(wrong=True))
        with pytest.raises(InvalidRequest):
            await watched.whole()

    asyncio.run(run())


def test_a_body_that_is_empty_is_judged_at_once() -> None:
    async def pull() -> tuple[bytes, bool]:
        raise AssertionError("there is nothing to pull")

    watched = RequestBody(pull, declared=None, limit=100, empty=True)
    with pytest.raises(InvalidRequest):
        watched.watch(Diary(wrong=True))
