"""Each fault has the outcome that the table states, at both doors, with both transports."""

from __future__ import annotations

import itertools
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import NamedTuple

import httpx
import psutil
import pytest

from tests.faults import faults
from tests.faults.answers import MEBIBYTE, QUESTION, Fingerprint
from tests.faults.faults import Loop, Upstream
from tests.faults.houses import DEAF, DOORS, KEY, PATIENT, QUICK, SENDERS, House, Place, open_house
from tests.faults.table import OWN_PLACES, TABLE, Case, Outcome
from tests.servers import free_port
from tests.transport._certificates import authority
from tests.transport._harness import deaf_port
from tests.transport._raw_server import Peer, RawServer

FORMS = ("json", "stream")

KEPT = 4 * MEBIBYTE
"""Bytes of a body that a caller of these tests keeps."""

MOST_MEMORY = 64 * MEBIBYTE
"""By which the process may grow, however large an answer is."""

SECRETS = (
    KEY, "127.0.0.1", "localhost", "Traceback", 'File "', "/ai_proxy_mw", "site-packages",
    "httpx", "httpcore", "ssl", "certificate", "Errno", "Error(",
)  # fmt: skip
"""What no caller may be told."""

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""To make one for each call would take longer than the call."""

_names = itertools.count()


class Cell(NamedTuple):
    """One door, one transport, one form of answer."""

    door: str
    sender: str
    form: str
    house: House
    upstream: Upstream
    spare: Upstream  # the second, which is well


@dataclass
class Seen:
    """What a caller has got."""

    status: int
    text: str  # of the head and what was kept of the body
    body: bytes
    fingerprint: Fingerprint
    retry_after: str | None
    ends: str
    seconds: float


class Stage:
    """All that the matrix is played on."""

    def __init__(self, loop: Loop, cells: list[Cell]) -> None:
        self.loop = loop
        self.cells = cells


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        loop = stack.enter_context(faults.open_loop())

        def listen(server: RawServer) -> str:
            stack.enter_context(faults.listening(loop, server))
            origin = server.origin
            return f"{origin.scheme}://{origin.host}:{origin.port}/v1"

        silent = listen(RawServer(Peer.until_closed))
        common = {
            "closed": Place((f"http://127.0.0.1:{free_port()}/v1",), PATIENT),
            "deaf": Place((f"http://127.0.0.1:{deaf_port(stack)}/v1",), DEAF),
            "other host": Place((listen(_tls("upstream.test")),), PATIENT),
            "expired": Place((listen(_tls("127.0.0.1", expired=True)),), PATIENT),
            "no greeting": Place((silent.replace("http:", "https:"),), DEAF),
        }
        cells = []
        for door, sender in itertools.product(DOORS, SENDERS):
            upstreams = {form: Upstream() for form in FORMS}
            spares = {form: Upstream() for form in FORMS}
            places = dict(common)
            for form, upstream in upstreams.items():
                url = listen(upstream.server)
                for name in OWN_PLACES:
                    patience = QUICK if name == "quick" else PATIENT
                    places[f"{name} {form}"] = Place((url,), patience)
                places |= _with_second(places, form, listen(spares[form].server))
            house = stack.enter_context(open_house(door, sender, places, authority().trust()))
            cells += [
                Cell(door, sender, form, house, upstreams[form], spares[form]) for form in FORMS
            ]
        yield Stage(loop, cells)


def _with_second(places: dict[str, Place], form: str, url: str) -> dict[str, Place]:
    return {
        f"second {name} {form}": Place((*place.base_urls, url), place.timeouts)
        for name, place in places.items()
        if len(place.base_urls) == 1
    }


def _tls(host: str, *, expired: bool = False) -> RawServer:
    return RawServer(Peer.until_closed, tls=authority().server(host, expired=expired))


LIGHT = [case for case in TABLE if not case.heavy]
HEAVY = [case for case in TABLE if case.heavy]


@pytest.mark.parametrize("second", [False, True], ids=["one", "two"])
@pytest.mark.parametrize("case", LIGHT, ids=lambda case: case.fault)
def test_outcome(stage: Stage, case: Case, second: bool, caplog: pytest.LogCaptureFixture) -> None:
    cells = [cell for cell in stage.cells if case.outcome(cell.sender, cell.form) is not None]
    _play(stage, case, cells, caplog, second=second)


@pytest.mark.parametrize(
    ("door", "sender", "form"),
    [
        pytest.param(*cell, marks=[] if cell == ("ASGI", "native", "json") else [pytest.mark.slow])
        for cell in itertools.product(DOORS, SENDERS, FORMS)
    ],
)
@pytest.mark.parametrize("case", HEAVY, ids=lambda case: case.fault)
def test_much(
    stage: Stage,
    case: Case,
    door: str,
    sender: str,
    form: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    [cell] = [cell for cell in stage.cells if cell[:3] == (door, sender, form)]
    cell.upstream.prepare_much(form == "stream")
    with _memory() as grown:
        _play(stage, case, [cell], caplog)
    assert grown() < MOST_MEMORY


@contextmanager
def _memory() -> Iterator[Callable[[], int]]:
    """How many bytes the process has grown by at most."""
    process, most, done = psutil.Process(), 0, threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield lambda: most - before
    finally:
        done.set()
        watching.join()


def _play(
    stage: Stage,
    case: Case,
    cells: list[Cell],
    caplog: pytest.LogCaptureFixture,
    *,
    second: bool = False,
) -> None:
    for cell in stage.cells:
        stage.loop.run(cell.upstream.prepare("sound"))
        stage.loop.run(cell.spare.prepare("sound"))
    _until(lambda: not any(cell.house.connections()[0] for cell in stage.cells), "old ones closed")
    if case.kept:
        place = "second patient {0} {0}" if second else "patient {0}"
        for _, seen in _all(cells, lambda cell: _ask(cell, place.format(cell.form), _who())):
            assert seen.status == 200
    for cell in cells:
        cell.upstream.playing = case.plays or "sound"
        cell.upstream.server.requests.clear()
    who = {id(cell): _who() for cell in cells}
    problems: list[str] = []
    for cell, seen in _all(
        cells, lambda cell: _ask(cell, _place(case, cell, second), who[id(cell)])
    ):
        problems += _differences(case, cell, seen, second)
    problems += _leaks(cells)
    for cell in cells:
        problems += _miscounts(case, cell, who[id(cell)], second)
        cell.upstream.playing = "sound"
    for cell, seen in _all(cells, lambda cell: _ask(cell, f"patient {cell.form}", _who())):
        if seen.ends != "whole" or seen.fingerprint != cell.upstream.fingerprint:
            problems.append(f"{_name(cell)}: the next call gets {seen.status} {seen.body!r}")
    problems += [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.ERROR and record.name.startswith(("ai_proxy_mw", "asyncio"))
    ]
    assert not problems, "\n" + "\n".join(problems)


def _all(cells: list[Cell], act: Callable[[Cell], Seen]) -> Iterator[tuple[Cell, Seen]]:
    """All of them at once, since most of the time is spent waiting."""
    with ThreadPoolExecutor(len(cells)) as threads:
        yield from zip(cells, threads.map(act, cells), strict=True)


def _who() -> str:
    return f"user-{next(_names)}"


def _name(cell: Cell) -> str:
    return f"{cell.door} {cell.sender} {cell.form}"


def _ask(cell: Cell, place: str, who: str) -> Seen:
    prefix = cell.house.proxies[place].prefix
    question = {**QUESTION, "stream": cell.form == "stream"}
    headers = {"x-user": who, "accept-encoding": "identity"}
    began = time.monotonic()
    kept, size, digest, ends = bytearray(), 0, sha256(), "whole"
    with (
        httpx.Client(trust_env=False, verify=NO_TLS, timeout=30) as client,
        client.stream(
            "POST", f"{cell.house.url}{prefix}/chat/completions", json=question, headers=headers
        ) as answer,
    ):
        try:
            for piece in answer.iter_raw():
                size += len(piece)
                digest.update(piece)
                if size <= KEPT:
                    kept += piece
        except httpx.RemoteProtocolError:
            ends = "cut"
    lines = [f"{name}: {value}" for name, value in answer.headers.items()]
    return Seen(
        answer.status_code,
        "\n".join([*lines, "", kept.decode(errors="replace")]),
        bytes(kept),
        Fingerprint(size, digest.hexdigest()),
        answer.headers.get("retry-after"),
        ends,
        time.monotonic() - began,
    )


def _place(case: Case, cell: Cell, second: bool) -> str:
    return case.place(cell.sender, cell.form, second=second)


def _differences(case: Case, cell: Cell, seen: Seen, second: bool) -> Iterator[str]:
    wanted = case.outcome(cell.sender, cell.form, second=second)
    assert wanted is not None
    name = _name(cell)
    got = (seen.status, _code(seen), _ends(seen))
    if got != (wanted.status, wanted.code, wanted.ends):
        yield f"{name}: {got}, not {wanted}: {seen.body[-300:]!r}"
    elif not _is_as_it_came(_answers(cell, wanted), wanted, seen):
        yield f"{name}: the body is {seen.body[:1000]!r}, not of {cell.upstream.promised[:1000]!r}"
    if seen.seconds > case.within:
        yield f"{name}: took {seen.seconds:.1f} s"
    if (
        case.plays
        and "Retry-After" in case.plays
        and (seen.retry_after != ("7" if wanted.status >= 400 else None))
    ):
        yield f"{name}: Retry-After is {seen.retry_after}"
    yield from (f"{name}: tells {word!r}" for word in SECRETS if word in seen.text)


def _answers(cell: Cell, wanted: Outcome) -> Upstream:
    return cell.spare if wanted.by_second else cell.upstream


def _ends(seen: Seen) -> str:
    return "event" if seen.ends == "whole" and _last_event(seen) else seen.ends


def _last_event(seen: Seen) -> bytes | None:
    """The data of the error event of ours at the end."""
    _, found, data = seen.body.rpartition(b"event: error\ndata: ")
    return data if found else None


def _code(seen: Seen) -> str | None:
    """The code of an error of ours."""
    try:
        error = json.loads(_last_event(seen) or seen.body)["error"]
    except (ValueError, KeyError):
        return None
    return error["code"] if error["type"] == "upstream_error" else None


def _is_as_it_came(upstream: Upstream, wanted: Outcome, seen: Seen) -> bool:
    """Whether the caller has got the upstream's bytes, all of them or the beginning."""
    if wanted.ends == "whole":
        return wanted.code is not None or seen.fingerprint == upstream.fingerprint
    body, _, _ = seen.body.partition(b"event: error\ndata: ")
    return upstream.promised.startswith(body)


def _leaks(cells: list[Cell]) -> Iterator[str]:
    """What is still there some time after the last answer has ended."""
    counts: dict[str, Callable[[Cell], int]] = {
        "connections in use": lambda cell: cell.house.connections()[1],
        "tasks": lambda cell: cell.house.extra_tasks(),
        "connections that only the upstream knows": lambda cell: _unowned(cell, cells),
    }
    for cell, (what, count) in itertools.product(cells, counts.items()):
        if not _comes_true(partial(_is_none, count, cell)):
            yield f"{_name(cell)}: {count(cell)} {what} left"


def _is_none(count: Callable[[Cell], int], cell: Cell) -> bool:
    return count(cell) == 0


def _unowned(cell: Cell, cells: list[Cell]) -> int:
    """Connections that are open at the upstream, and that the transport knows nothing of."""
    same = [each for each in cells if each.house is cell.house]
    open_there = sum(each.upstream.server.open + each.spare.server.open for each in same)
    return open_there - cell.house.connections()[0]


def _miscounts(case: Case, cell: Cell, who: str, second: bool) -> Iterator[str]:
    wanted = case.outcome(cell.sender, cell.form, second=second)
    assert wanted is not None
    tokens, usd, places, reserved = cell.house.spent(_place(case, cell, second), who)
    if (tokens, usd) != (wanted.charged.tokens, wanted.charged.micro_usd):
        charged = f"{2 * tokens - usd} tokens in, {usd - tokens} out"
        yield f"{_name(cell)}: charged {charged}, not {wanted.charged}"
    if places or reserved:
        yield f"{_name(cell)}: {places} places and {reserved} reserved are held"
    calls = len(cell.upstream.server.requests)
    if calls != _calls(case):
        yield f"{_name(cell)}: the upstream was asked {calls} times"
    calls = len(cell.spare.server.requests)
    if calls != int(wanted.by_second):
        yield f"{_name(cell)}: the second upstream was asked {calls} times"


def _calls(case: Case) -> int:
    """How many requests reach the upstream."""
    return 0 if case.plays in (None, "accepts and closes") else 1


def _until(holds: Callable[[], bool], what: str) -> None:
    assert _comes_true(holds), what


def _comes_true(holds: Callable[[], bool], within: float = 3.0) -> bool:
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
