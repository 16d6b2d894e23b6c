"""The command line's look at an upstream: each step timed, each failure said, no key shown."""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

import ai_proxy_mw.__main__ as cli
from ai_proxy_mw import ConfigurationError, _ping_command
from ai_proxy_mw._ping import STEPS, Resolve, resolve
from ai_proxy_mw.testing import FakeUpstream
from tests.transport._certificates import authority
from tests.transport._raw_server import Peer, RawServer, Script

KEY = "sk-secret-123"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CLEAR = "\x1b[2J"


class Shown(NamedTuple):
    code: int
    lines: list[str]
    warned: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads("\n".join(self.lines))
        return found


Command = Callable[..., Shown]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """As from the shell."""
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("EMPTY", "")

    def run(*arguments: str) -> Shown:
        try:
            code = cli.main(["ping", *arguments])
        except SystemExit as end:
            code = int(str(end.code))
        shown = capsys.readouterr()
        assert KEY not in shown.out + shown.err
        return Shown(code, shown.out.splitlines(), shown.err)

    return run


async def nowhere(host: str, port: int) -> Sequence[str]:
    return []


async def here(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def ping(
    *arguments: str,
    resolve: Resolve = here,
    trust: ssl.SSLContext | None = None,
    environ: Mapping[str, str] | None = None,
) -> Shown:
    """In this event loop, with what a shell cannot choose."""
    parser = argparse.ArgumentParser()
    _ping_command.add_arguments(parser)
    lines: list[str] = []
    warned: list[str] = []
    code = await _ping_command.run(
        parser.parse_args(arguments),
        lines.append,
        warned.append,
        environ=environ or {},
        resolve=resolve,
        trust=trust,
    )
    return Shown(code, "\n".join(lines).splitlines(), "\n".join(warned))


def raw(*scripts: Script, secure: bool = False, **options: Any) -> Callable[..., Shown]:
    """Ask `up.example`, a server that does what the scripts say."""

    def run(*arguments: str) -> Shown:
        async def main() -> Shown:
            tls = authority().server("up.example") if secure else None
            async with RawServer(*scripts, tls=tls) as server:
                run.requests = server.requests  # type: ignore[attr-defined]
                url = f"{server.origin.scheme}://up.example:{server.port}/v1"
                return await ping("--upstream", url, *arguments, **options)

        return asyncio.run(main())

    return run


def answers(*heads: bytes) -> Script:
    async def script(peer: Peer) -> None:
        for head in heads:
            await peer.request()
            await peer.send(head)
        await peer.until_closed()

    return script


def refusal(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d No\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


def test_a_model_is_timed_on_new_connections_and_kept_ones(
    command: Command, fake: FakeUpstream
) -> None:
    with fake.serve() as upstream:
        shown = command(
            *("--upstream", upstream.base_url, "--model", "fake-1", "--model", "fake-2"),
            *("-n", "3", "--api-key-env", "A_KEY", "--json"),
        )
    assert shown.code == 0
    assert shown.warned == (
        "Sends 12 requests for at most 16 tokens each, which cost a little, one after the other.\n"
    )
    found = [(row["model"], row["connection"], row["requests"], row["ok"]) for row in shown.rows]
    assert found == [
        ("fake-1", "new", 3, 3),
        ("fake-1", "kept", 3, 3),
        ("fake-2", "new", 3, 3),
        ("fake-2", "kept", 3, 3),
    ]
    for row in shown.rows:
        spreads = row["milliseconds"]
        assert list(spreads) == list(STEPS)
        taken = {step for step, spread in spreads.items() if spread}
        new = {"dns", "connect"} if row["connection"] == "new" else set()
        assert taken == {"first_byte", "total", *new}
        for step in taken:
            assert 0 < spreads[step]["min"] <= spreads[step]["median"] <= spreads[step]["max"]
        assert spreads["total"]["max"] >= spreads["first_byte"]["max"]
        assert row["errors"] == {}
    assert len(fake.requests) == 12
    assert fake.connections_opened == 6
    for request in fake.requests:
        assert (request.method, request.path) == ("POST", "/v1/chat/completions")
        assert request.json()["stream"] is True
        assert request.json()["max_tokens"] == 16
        headers = dict(request.headers)
        assert headers[b"authorization"] == f"Bearer {KEY}".encode()
        assert headers[b"host"] == upstream.base_url[7:-3].encode()


def test_without_a_model_its_list_is_asked_for(command: Command, fake: FakeUpstream) -> None:
    with fake.serve() as upstream:
        shown = command("--upstream", upstream.base_url)
    assert (shown.code, shown.warned) == (0, "Sends 10 requests, one after the other.\n")
    head, new, kept, legend = shown.lines
    assert head.split() == ["upstream", "model", "connection", "ok", *STEPS]
    assert new.split()[:5] == [upstream.base_url, "GET", "/models", "new", "5/5"]
    assert kept.split()[3:8] == ["kept", "5/5", "-", "-", "-"]
    assert legend.startswith("Milliseconds: the median (least-most).")
    assert {request.path for request in fake.requests} == {"/v1/models"}
    assert b"authorization" not in dict(fake.requests[0].headers)


def test_one_that_fails_does_not_hide_another(command: Command, fake: FakeUpstream) -> None:
    fake.fail(401, times=99, message=f"{CLEAR}Wrong key: {KEY}", path="/chat/completions")
    with fake.serve() as upstream:
        shown = command(
            *("--upstream", "http://127.0.0.1:1/v1", "--api-key-env", "-"),
            *("--upstream", upstream.base_url, "--api-key-env", "A_KEY"),
            *("--model", CLEAR, "-n", "4"),
        )
    assert shown.code == 1
    assert shown.lines[2] == "  failed 3 x connect: Connection refused"
    assert shown.lines[4] == "  failed 3 x answer: 401 \\x1b[2JWrong key: ***"
    assert [line.split()[3] for line in shown.lines[1:4:2]] == ["0/3", "0/3"]
    assert all(line.isascii() and line.isprintable() for line in shown.lines)
    assert len(fake.requests) == 3


def test_what_fails_now_and_then_is_counted_beside_the_rest(
    command: Command, fake: FakeUpstream
) -> None:
    fake.fail(503, times=2, message="Busy.")
    with fake.serve() as upstream:
        shown = command("--upstream", upstream.base_url, "-n", "4", "--json")
    assert shown.code == 1
    new, kept = shown.rows
    assert (new["requests"], new["ok"]) == (4, 2)
    assert new["errors"] == {"answer: 503 Busy.": 2}
    assert (kept["requests"], kept["ok"]) == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--upstream", "ftp://a/v1"], "write a whole URL"),
        (["--upstream", "https://u:sk-secret-123@a/v1"], "must not hold a user or password"),
        (["--upstream", f"https://a/{CLEAR}"], "ASCII"),
        (["--upstream", "https://a/{model}/v1"], "needs a --model"),
        (["--upstream", "https://a/{model}/v1", "--model", "a/b"], "needs a --model"),
        (["--upstream", "https://a/v1", "--model", "\udcff"], "--model: write text"),
        (["--upstream", "https://a/v1", "--api-key-env", "EMPTY"], "name of a variable"),
        (["--upstream", "https://a/v1", "--api-key-env", KEY], "name of a variable"),
        (
            ["--upstream", "https://a/v1", "--upstream", "https://b/v1", "--api-key-env", "A_KEY"],
            "one for each --upstream",
        ),
        ([], "--upstream"),
        (["--upstream", "https://a/v1", "-n", "0"], "from 1 to 100"),
        (["--upstream", "https://a/v1", "-n", "101"], "from 1 to 100"),
        (["--upstream", "https://a/v1", "-n", "x"], "from 1 to 100"),
        (["--upstream", "https://a/v1", "--timeout", "0"], "300 at most"),
        (["--upstream", "https://a/v1", "--timeout", "301"], "300 at most"),
        (["--upstream", "https://a/v1", "--timeout", "nan"], "300 at most"),
    ],
)
def test_what_must_be_written_otherwise(
    command: Command, arguments: list[str], complaint: str
) -> None:
    shown = command(*arguments)
    assert (shown.code, shown.lines) == (2, [])
    assert complaint in shown.warned
    assert "\x1b" not in shown.warned


def test_tls_is_a_step_of_its_own_and_the_host_is_that_which_was_named() -> None:
    run = raw(answers(OK, OK), secure=True, trust=authority().trust())
    shown = run("-n", "2", "--json")
    assert shown.code == 0
    new, kept = shown.rows
    assert new["milliseconds"]["tls"]["min"] > 0
    assert kept["milliseconds"]["tls"] is None
    requests = run.requests  # type: ignore[attr-defined]
    assert {request.header(b"host").partition(b":")[0] for request in requests} == {b"up.example"}
    assert len(requests) == 4


def test_a_certificate_of_nobody_is_said() -> None:
    run = raw(answers(OK), secure=True)
    shown = run("-n", "1")
    assert shown.code == 1
    assert "failed 1 x tls:" in shown.lines[2]
    assert "certificate verify failed" in shown.lines[2]


def test_a_name_that_nobody_knows_is_said(command: Command) -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        import socket

        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def silent(host: str, port: int) -> Sequence[str]:
        import socket

        raise socket.gaierror

    async def unsaid(host: str, port: int) -> Sequence[str]:
        raise UnicodeError("label too long")

    for resolver, text in (
        (unknown, "Name or service not known"),
        (silent, "not known"),
        (nowhere, "no address"),
        (unsaid, "label too long"),
    ):
        shown = asyncio.run(ping("--upstream", "http://up.invalid/v1", "-n", "1", resolve=resolver))
        assert (shown.code, shown.lines[2]) == (1, f"  failed 1 x dns: {text}")


def test_names_of_this_machine_are_found() -> None:
    assert "127.0.0.1" in asyncio.run(resolve("127.0.0.1", 80))


def test_the_next_address_is_tried_and_the_good_one_kept() -> None:
    async def two(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1", "127.0.0.3"]

    shown = raw(answers(OK, OK), resolve=two)("-n", "2", "--json")
    assert shown.code == 0
    assert [(row["connection"], row["ok"]) for row in shown.rows] == [("new", 2), ("kept", 2)]


def test_an_answer_that_fails_is_not_asked_for_at_the_next_address() -> None:
    async def twice(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1", "127.0.0.1"]

    run = raw(answers(refusal(500, b"")), resolve=twice)
    assert run("-n", "1").lines[2] == "  failed 1 x answer: 500"
    assert len(run.requests) == 1  # type: ignore[attr-defined]


async def _silence(peer: Peer) -> None:
    await peer.request()
    await peer.until_closed()


async def _hangs_up(peer: Peer) -> None:
    await peer.request()


async def _resets(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def _floods(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
    try:
        while True:
            await peer.send(bytes(1 << 20))
    except ConnectionError:
        pass


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (_silence, "answer: not done in 0.3 s"),
        (_hangs_up, "answer: Server disconnected without sending a response."),
        (_resets, "answer: Connection reset by peer"),
        (_floods, "answer: the answer is too long"),
        (answers(b"nonsense\r\n\r\n"), "answer: illegal status line"),
        (answers(refusal(302, b"")), "answer: 302"),
        (answers(refusal(502, b"<html>\n\x9b")), "answer: 502 <html>\\n\\ufffd"),
        (answers(refusal(400, b'{"error": null}')), 'answer: 400 {"error": null}'),
        (answers(refusal(500, b"x" * 99_999)), "answer: 500 " + "x" * 188),
    ],
)
def test_how_it_fails_is_said(script: Script, complaint: str) -> None:
    patience = "0.3" if script is _silence else "20"
    shown = raw(script)("-n", "1", "--timeout", patience)
    assert shown.code == 1
    assert shown.lines[2].startswith(f"  failed 1 x {complaint}")
    assert all(line.isascii() and line.isprintable() for line in shown.lines)


def test_a_redirect_is_not_followed() -> None:
    run = raw(answers(b"HTTP/1.1 307 No\r\nlocation: /v1/x\r\ncontent-length: 0\r\n\r\n", OK))
    assert run("-n", "1").code == 1
    assert len(run.requests) == 1  # type: ignore[attr-defined]


def test_who_keeps_no_connection_has_no_row_for_it() -> None:
    closes = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    shown = raw(answers(closes))("-n", "2", "--json")
    assert shown.code == 0
    assert [(row["connection"], row["ok"]) for row in shown.rows] == [("new", 2)]


def test_the_other_name_of_the_limit_is_tried_once() -> None:
    no = b'{"error": {"message": "Not max_tokens.", "param": "%s"}}'
    learns = [answers(refusal(400, no % b"max_tokens")), answers(OK, OK)]
    run = raw(*learns)
    shown = run("--model", "o9", "-n", "2", "--json")
    assert (shown.code, [row["ok"] for row in shown.rows]) == (0, [2, 2])
    bodies = [json.loads(request.body) for request in run.requests]  # type: ignore[attr-defined]
    assert [body.get("max_tokens") for body in bodies] == [16, None, None, None, None]
    assert [body.get("max_completion_tokens") for body in bodies] == [None, 16, 16, 16, 16]
    for name in (b"max_completion_tokens", b"max_tokens", b"model"):
        shown = raw(answers(refusal(400, no % name)))("--model", "o9", "-n", "1")
        assert shown.lines[2] == "  failed 1 x answer: 400 Not max_tokens."


def test_a_model_can_be_in_the_path() -> None:
    async def main() -> Shown:
        async with RawServer(answers(OK, OK)) as server:
            url = f"http://up.example:{server.port}/d/{{model}}/v1"
            shown = await ping("--upstream", url, "--model", "m-1", "-n", "1")
            assert server.requests[0].lines[0] == b"POST /d/m-1/v1/chat/completions HTTP/1.1"
            return shown

    assert asyncio.run(main()).code == 0


def test_a_wrong_key_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigurationError, match="a variable that holds a key"):
        asyncio.run(
            ping(
                *("--upstream", "http://up.example/v1", "--api-key-env", "K"),
                environ={"K": "two words"},
                resolve=nowhere,
            )
        )
