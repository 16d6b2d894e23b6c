"""The line of each call: what it has, what it never has, and that any logging can write it."""

from __future__ import annotations

import ast
import io
import json
import logging
import logging.config
import logging.handlers
import queue
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.accounting.record import Bodies, Record
from ai_proxy_mw.metrics.access_log import ATTRIBUTE, AccessLog, logger
from ai_proxy_mw.metrics.log_bodies import SEAM
from tests.servers import ROOT

KEY = "sk-Zx81mQpA73hdkWv0aB"
RECORD = Record(
    time=1_700_000_000.1239,
    request_id="req-1",
    subject="alice@example.com",
    endpoint="POST /chat/completions",
    model="gpt-4.1",
    model_used="gpt-4.1-2025-04-14",
    upstream="openai",
    attempts=2,
    status=200,
    error=None,
    outcome="complete",
    stream=True,
    cache="miss",
    background=False,
    input_tokens=101,
    cached_input_tokens=102,
    cache_write_tokens=103,
    output_tokens=104,
    reasoning_tokens=105,
    audio_tokens=106,
    image_tokens=107,
    images=1,
    seconds=1.5,
    measured=True,
    cost=1234,
    saved=1,
    saved_tokens=108,
    bytes_in=109,
    bytes_out=110,
    first_byte=0.25,
    first_content=0.3,
    total=1.2345678,
    max_gap=0.000_02,
    overhead=0.0004,
)
LINE = {
    "time": "2023-11-14T22:13:20.123Z",
    "request_id": "req-1",
    "subject": "alice@example.com",
    "endpoint": "POST /chat/completions",
    "model": "gpt-4.1",
    "model_used": "gpt-4.1-2025-04-14",
    "upstream": "openai",
    "attempts": 2,
    "status": 200,
    "error": None,
    "outcome": "complete",
    "stream": True,
    "cache": "miss",
    "background": False,
    "input_tokens": 101,
    "cached_input_tokens": 102,
    "cache_write_tokens": 103,
    "output_tokens": 104,
    "reasoning_tokens": 105,
    "audio_tokens": 106,
    "image_tokens": 107,
    "images": 1,
    "audio_seconds": 1.5,
    "measured": True,
    "cost_usd": 0.001234,
    "saved_usd": 0.000001,
    "saved_tokens": 108,
    "bytes_in": 109,
    "bytes_out": 110,
    "first_byte_ms": 250.0,
    "first_content_ms": 300.0,
    "total_ms": 1234.568,
    "max_gap_ms": 0.02,
    "overhead_ms": 0.4,
}
BODIES = ("request_body", "request_body_is_whole", "response_body", "response_body_is_whole")


@pytest.fixture(autouse=True)
def _on(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger.name):
        yield
    assert logger.handlers == []
    assert logger.propagate


@pytest.fixture
def line(caplog: pytest.LogCaptureFixture) -> Callable[..., dict[str, Any]]:
    """Logs a record, and gives the members of its line."""

    def log(record: Record = RECORD, /, **options: Any) -> dict[str, Any]:
        access_log = options.pop("access_log", None) or AccessLog(**options)
        caplog.clear()
        access_log(record)
        found = [each for each in caplog.records if each.name == logger.name]
        assert len(found) == 1
        message = found[0].getMessage()
        assert re.fullmatch(r"[ -~]+", message)  # visible ASCII, and so one line
        assert json.loads(message) == getattr(found[0], ATTRIBUTE)
        return json.loads(message)  # type: ignore[no-any-return]

    return log


def _with(**changes: Any) -> Record:
    return msgspec.structs.replace(RECORD, **changes)


def _said(request: bytes | str = b"", response: bytes | str = b"", **changes: Any) -> Record:
    whole = {"request_is_whole": True, "response_is_whole": True}
    whole |= {name: changes.pop(name) for name in tuple(whole) if name in changes}
    request, response = (
        each.encode() if isinstance(each, str) else each for each in (request, response)
    )
    return _with(bodies=Bodies(request=request, response=response, **whole), **changes)


def test_a_line_tells_all_of_a_call(
    line: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    assert list(line().items()) == list(LINE.items())
    assert caplog.records[0].levelno == logging.INFO
    assert caplog.records[0].funcName == "AccessLog"


def test_nothing_of_a_record_is_forgotten(line: Callable[..., dict[str, Any]]) -> None:
    told = set(LINE) | {"bodies"}
    for name in Record.__struct_fields__:
        assert {name, f"{name}_ms", f"{name}_usd", f"audio_{name}"} & told, name
    assert len(Record.__struct_fields__) == len(LINE) + 1


def test_what_is_not_known_is_null_and_every_line_has_the_same_members(
    line: Callable[..., dict[str, Any]],
) -> None:
    bare = line(Record(time=0, request_id="r", cost=None, saved=None, outcome="refused"))
    assert list(bare) == list(LINE)
    assert bare["time"] == "1970-01-01T00:00:00.000Z"
    unknown = {name for name, value in bare.items() if value is None}
    assert unknown == {
        "model", "model_used", "upstream", "error", "cache", "measured", "cost_usd", "saved_usd",
        "first_byte_ms", "first_content_ms", "max_gap_ms",
    }  # fmt: skip


def test_the_docs_name_the_members() -> None:
    text = (ROOT / "docs" / "logs.md").read_text()
    table = text.partition("\n## What a line tells")[2].partition("\n## ")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert named == [*LINE, *BODIES]


def test_nothing_that_was_said_is_in_the_log_unless_it_was_asked_for(
    line: Callable[..., dict[str, Any]],
) -> None:
    assert line(_said("my words", "your words")) == LINE
    assert AccessLog().body_bytes == 0
    assert AccessLog(log_bodies=0).body_bytes == 0
    assert AccessLog().bodies_lost == 0


NASTY = '\n\r{"a":1}\x00\x1b[31m\x7f\x85\u2028\u2029\u202e\ud800"\\'


def test_no_text_can_make_a_second_line_or_break_the_first(
    line: Callable[..., dict[str, Any]],
) -> None:
    for name in ("request_id", "subject", "model", "model_used", "error"):
        found = line(_with(**{name: NASTY}))
        assert found[name] == NASTY.replace("\ud800", "\\ud800")
        line(_with(**{name: NASTY}), hash_subjects=True)
    body = NASTY.replace("\ud800", "").replace("\x00", "")
    assert line(_said(body, body), log_bodies=True)["request_body"] == body


def test_a_name_of_any_length_takes_a_line_of_bounded_length(
    line: Callable[..., dict[str, Any]],
) -> None:
    assert line(_with(model="m" * 100_000, model_used="é" * 300))["model"] == "m" * 256
    assert line(_with(model_used="é" * 300))["model_used"] == "é" * 256


def test_who_logs_nothing_pays_nothing(caplog: pytest.LogCaptureFixture) -> None:
    access_log = AccessLog()
    assert access_log.is_on
    with caplog.at_level(logging.WARNING, logger.name):
        assert [AccessLog().is_on, AccessLog(level=logging.WARNING).is_on] == [False, True]
        access_log(_with(time=float("nan")))  # it would raise if it were looked at
    assert caplog.records == []


def test_the_level_is_the_owners(caplog: pytest.LogCaptureFixture) -> None:
    AccessLog(level=logging.ERROR)(RECORD)
    assert caplog.records[0].levelname == "ERROR"


# -- bodies -------------------------------------------------------------------------------------


def test_bodies_that_are_asked_for(line: Callable[..., dict[str, Any]]) -> None:
    found = line(_said('{"q": "Grüße"}', '{"a": "世界"}', stream=False), log_bodies=True)
    assert tuple(found)[-4:] == BODIES
    assert [found[name] for name in BODIES] == ['{"q": "Grüße"}', True, '{"a": "世界"}', True]
    assert {**found, **LINE} == {**found, "stream": True}
    assert AccessLog(log_bodies=True).body_bytes == 4096 + SEAM
    assert AccessLog(log_bodies=10).body_bytes == 10 + SEAM
    found = line(log_bodies=True)  # as of a call that was refused at the door
    assert [found[name] for name in BODIES] == [None] * 4


def test_secrets_leave_bodies(line: Callable[..., dict[str, Any]]) -> None:
    for stream in (True, False):
        found = line(_said(f'{{"q": "{KEY}"}}', f"data: {KEY}\n\n", stream=stream), log_bodies=True)
        assert found["request_body"] == '{"q": "[redacted]"}'
        assert found["response_body"] == "data: [redacted]\n\n"
    events = [f'data: {{"text":"{piece}"}}\n' for piece in (KEY[:4], KEY[4:])]
    for stream in (True, False):  # an upstream may stream unasked
        found = line(_said(response="".join(events), stream=stream), log_bodies=True)
        assert found["response_body"] == 'data: {"text":"[redacted]"}\n' * 2


@pytest.mark.parametrize("kept", range(40 + SEAM - len(KEY), 42 + SEAM))
def test_no_cut_lets_a_part_of_a_secret_through(
    line: Callable[..., dict[str, Any]], kept: int
) -> None:
    text = "word " * 200
    for at in (kept - len(KEY), 30):
        whole = f"{text[:at]} {KEY} {text}"
        record = _said(whole[:kept], whole[:kept], request_is_whole=False, response_is_whole=False)
        found = line(record, log_bodies=40)
        for name in ("request_body", "response_body"):
            assert "sk-" not in found[name]
            assert len(found[name]) <= 40
            assert found[f"{name}_is_whole"] is False


def test_a_cut_within_a_character_is_no_other_coding(line: Callable[..., dict[str, Any]]) -> None:
    for size in range(1, 9):
        record = _said("世界" * 200, ("世界" * 200).encode()[:size], response_is_whole=False)
        found = line(record, log_bodies=size)
        assert found["request_body"] == found["response_body"] == "世界世界"[: size // 3]
        assert not found["request_body_is_whole"]


@pytest.mark.parametrize(
    "body", [b"\xff\xfe\x00", b"\x1f\x8b\x08", "sk-Zx81".encode("utf-16-le"), b"a\0", b"\xe4b"]
)
def test_what_is_not_text_is_not_shown(line: Callable[..., dict[str, Any]], body: bytes) -> None:
    assert line(_said(body), log_bodies=True)["request_body"] == "[not text]"


def test_the_owners_redaction_comes_last_and_sees_what_the_cut_takes(
    line: Callable[..., dict[str, Any]],
) -> None:
    seen = []

    def redact(text: str) -> str:
        seen.append(text)
        return text.replace("4111 1111", "[card]") + "\ud800"

    record = _said(f"{KEY} 4111 1111 and more", "4111 1111")
    found = line(record, log_bodies=20, redact=redact)
    assert seen == ["[redacted] 4111 1111 and more", "4111 1111"]
    assert found["request_body"] == "[redacted] [card] an"
    assert found["request_body_is_whole"] is False
    assert found["response_body"] == "[card]\\ud800"


def test_a_redaction_that_fails_loses_the_bodies_and_not_the_line(
    line: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = [ValueError("my words"), None, b"", "a", "b", ValueError("my words")]

    def redact(text: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    access_log = AccessLog(log_bodies=True, redact=redact)
    told = []
    shown = []
    for _ in range(5):
        shown.append(line(_said("my words", "my words"), access_log=access_log)["request_body"])
        told += [each.getMessage() for each in caplog.records if each.name == "ai_proxy_mw"]
        assert "my words" not in caplog.text
    assert shown == [None, None, None, "a", None]
    assert access_log.bodies_lost == 4
    assert len(told) == 2  # once for each row of failures
    assert re.match(
        r"redact= of the access log has raised ValueError at .*test_access_log", told[0]
    )


# -- subjects -----------------------------------------------------------------------------------


def test_subjects_are_hashed_with_the_owners_key(line: Callable[..., dict[str, Any]]) -> None:
    key = "k" * 16
    subject = line(hash_subjects=key)["subject"]
    assert re.fullmatch("[0-9a-f]{32}", subject)
    assert line(hash_subjects=key.encode())["subject"] == subject
    assert line(hash_subjects="K" * 16)["subject"] != subject
    assert line(_with(subject="bob"), hash_subjects=key)["subject"] != subject
    assert line(_with(subject=""), hash_subjects=key)["subject"] == ""
    # Another process of the same key has the same.
    code = (
        f"import hashlib; print(hashlib.blake2b({RECORD.subject.encode()!r}, key={key.encode()!r}"
    )
    told = subprocess.run(
        [sys.executable, "-c", f"{code}, digest_size=16).hexdigest())"],
        capture_output=True,
        check=True,
    )
    assert told.stdout.decode().strip() == subject


def test_without_a_key_they_are_the_same_for_as_long_as_the_process_lives(
    line: Callable[..., dict[str, Any]],
) -> None:
    access_log = AccessLog(hash_subjects=True)
    subject = line(access_log=access_log)["subject"]
    assert line(access_log=access_log)["subject"] == subject
    assert line(access_log=AccessLog(hash_subjects=True))["subject"] != subject
    assert "alice" not in subject


def test_the_key_is_not_shown() -> None:
    assert "kkkk" not in repr(AccessLog(hash_subjects="k" * 16))


@pytest.mark.parametrize(
    "options",
    [
        {"log_bodies": -1},
        {"log_bodies": 1024 * 1024 + 1},
        {"log_bodies": 1.5},
        {"log_bodies": "yes"},
        {"redact": str.upper},
        {"redact": "upper", "log_bodies": True},
        {"level": "INFO"},
        {"level": True},
        {"level": 0},
        {"hash_subjects": "short"},
        {"hash_subjects": b""},
        {"hash_subjects": "k" * 65},
        {"hash_subjects": 7},
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"AccessLog\(.*: write") as caught:
        AccessLog(**options)
    assert "kkkk" not in str(caught.value)
    assert "short" not in str(caught.value)


# -- the logging of the host --------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    """As apps have one: it adds members of its own."""

    def format(self, record: logging.LogRecord) -> str:
        members = {"logger": record.name, "level": record.levelname, "text": record.getMessage()}
        return json.dumps({**members, **getattr(record, ATTRIBUTE, {})})


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the root logger's handlers write; they are as they were afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def _configure(stream: Any, formatter: dict[str, Any]) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": formatter},
            "handlers": {
                "out": {"class": "logging.StreamHandler", "stream": stream, "formatter": "json"}
            },
            "loggers": {
                logger.name: {"level": "INFO"},
            },
            "root": {"handlers": ["out"]},
        }
    )


def test_a_formatter_of_the_host_finds_the_members(written: io.StringIO) -> None:
    _configure(written, {"()": JsonFormatter})
    AccessLog()(RECORD)
    told = json.loads(written.getvalue())
    assert json.loads(told.pop("text")) == LINE
    assert told == {"logger": logger.name, "level": "INFO", **LINE}


def test_a_plain_formatter_writes_the_line_in_any_encoding(written: io.StringIO) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    _configure(stream, {"format": "%(levelname)s %(message)s"})
    AccessLog(log_bodies=True)(_said("世界\u2028", NASTY.encode("utf-8", "replace")))
    stream.flush()
    assert raw.getvalue().startswith(b'INFO {"time":"2023-11-14T22:13:20.123Z"')
    assert len(raw.getvalue().decode().splitlines()) == 1


def test_a_queue_carries_it_to_another_thread(written: io.StringIO) -> None:
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    target = logging.StreamHandler(written)
    target.setFormatter(JsonFormatter())
    listener = logging.handlers.QueueListener(lines, target)
    logging.getLogger().addHandler(logging.handlers.QueueHandler(lines))
    listener.start()
    AccessLog()(RECORD)
    listener.stop()
    assert json.loads(written.getvalue())["request_id"] == "req-1"


def test_structlog_renders_the_members(written: io.StringIO) -> None:
    import structlog

    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.ExtraAdder([ATTRIBUTE]),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    _configure(written, {"()": lambda: formatter})
    AccessLog()(RECORD)
    told = json.loads(written.getvalue())
    assert json.loads(told.pop("event")) == LINE
    assert told == {"level": "info", ATTRIBUTE: LINE}


def test_a_filter_of_the_host_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    def failed(record: logging.LogRecord) -> bool:
        return bool(getattr(record, ATTRIBUTE)["outcome"] == "failed")

    logger.addFilter(failed)
    try:
        AccessLog()(RECORD)
        AccessLog()(_with(outcome="failed"))
    finally:
        logger.removeFilter(failed)
    assert [getattr(each, ATTRIBUTE)["outcome"] for each in caplog.records] == ["failed"]


def test_no_module_of_the_room_installs_a_handler() -> None:
    for path in (ROOT / "ai_proxy_mw" / "metrics").rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.Attribute)}  # fmt: skip
        assert not names & {"addHandler", "basicConfig", "dictConfig", "StreamHandler"}, path
