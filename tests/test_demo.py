"""The demo does what it says, and what it prints works as printed."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import IO

import httpx
import pytest

import ai_proxy_mw.__main__ as cli
from ai_proxy_mw.testing import FakeUpstream
from tests.servers import ROOT


def test_once_it_answers_and_stops(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--once", "--port", "0"]) == 0
    shown = capsys.readouterr().out
    assert "You said: What does a proxy inside my own app save me?" in shown
    assert "curl -N http://127.0.0.1:" in shown


def test_it_takes_another_upstream_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fake: FakeUpstream
) -> None:
    with fake.serve() as upstream:
        monkeypatch.setenv("AI_PROXY_UPSTREAM", upstream.base_url)
        fake.fail(401, message="That key is unknown here.")
        assert cli.main(["demo", "--once", "--port", "0", "--model", "fake-2"]) == 0
    assert "That key is unknown here." in capsys.readouterr().out
    assert fake.requests[0].json()["model"] == "fake-2"


def test_what_stands_in_the_way_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fake: FakeUpstream
) -> None:
    with fake.serve() as upstream:
        port = upstream.base_url.rpartition(":")[2].removesuffix("/v1")
        assert cli.main(["demo", "--port", port]) == 1
        assert "--port" in capsys.readouterr().err
    monkeypatch.setenv("AI_PROXY_UPSTREAM", "nonsense")
    assert cli.main(["demo"]) == 2
    assert "AI_PROXY_UPSTREAM" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["demo"]) == 2
    assert "pip install" in capsys.readouterr().err


@pytest.fixture
def running() -> Iterator[str]:
    """What the demo prints until it serves."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "ai_proxy_mw", "demo", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        yield _until_serving(process.stdout)
    finally:
        watchdog.cancel()
        process.terminate()
        rest = process.communicate(timeout=20)[0]
    assert "Traceback" not in rest


def _until_serving(output: IO[str]) -> str:
    lines = []
    for line in output:
        lines.append(line)
        if line.startswith("Serving"):
            break
    return "".join(lines)


def test_the_printed_lines_work_as_printed(running: str) -> None:
    curl = re.search(r"^  (curl .*)$", running, re.MULTILINE)
    assert curl, running
    answered = subprocess.run(curl[1], shell=True, capture_output=True, text=True, check=True)
    assert answered.stdout.endswith("data: [DONE]\n\n")
    snippet = textwrap.dedent(
        running[running.index("  from openai") : running.index("and look at")]
    )
    printed = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, check=True
    )
    assert printed.stdout == "You said: Hello!"


def test_the_dashboard_is_there_for_this_machine_alone(running: str) -> None:
    found = re.search(r"the calls are like: (http://127.0.0.1:[0-9]+/ai)$", running, re.MULTILINE)
    assert found, running
    assert "AI proxy" in httpx.get(found[1]).text
    told = httpx.get(f"{found[1]}/data").json()
    assert told["report"]["total"]["requests"] == 1
    assert httpx.get(found[1], headers={"host": "evil.example:8080"}).status_code == 401
