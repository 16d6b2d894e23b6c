"""No key of a usual shape or name is left in a body, wherever it is cut, and at no great cost."""

from __future__ import annotations

import base64
import json
import os
import time

import pytest

from ai_proxy_mw.metrics.redact import redact
from ai_proxy_mw.metrics.redact_stream import redact_stream

HEX = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
BLOB = base64.b64encode(bytes(range(256))).decode()
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIBVQ\nIBADAN\n-----END PRIVATE KEY-----"

SHAPES = {
    "openai": "sk-Zx81mQpA73hdkWv0aB",
    "openai of a project": "sk-proj-" + "aB3_x-" * 20,
    "anthropic": "sk-ant-api03-" + "aB3_x-" * 15 + "AA",
    "openrouter": "sk-or-v1-" + HEX * 2,
    "google": "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "google oauth": "ya29.a0AfH6SMBx7yQ",
    "github": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github, fine": "github_pat_11ABCDEFG0abcdef_1234567890",
    "gitlab": "glpat-ABCdef123456789xyz",
    "slack": "xoxb-123456789012-abcdefABCDEF",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "hugging face": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
    "groq": "gsk_" + "aB3x" * 13,
    "xai": "xai-" + "aB3x" * 20,
    "nvidia": "nvapi-" + "aB3x_" * 12,
    "fireworks": "fw_3ZaBcDeFgHiJkLmNoPqRsT",
    "together": "tgp_v1_aB3xaB3xaB3xaB3xaB3",
    "stripe": "sk_live_51H8aBcD3fGh",
    "elevenlabs": "sk_" + HEX + "aaaa",
    "azure": HEX,
    "mistral": "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bD1fG",
    "jwt": JWT,
    "base64": BLOB,
    "base64 as PHP writes it": "aBcDeFgHiJ0\\/" * 20,
    "base64 as .NET writes it": "aBcDeFgHiJ0\\u002B" * 20,
    "base64 for urls": BLOB.replace("+", "-").replace("/", "_"),
}


def _is_in(secret: str, text: str) -> bool:
    """Whether eight of its characters, after the part that all such keys have, are there."""
    tail = secret[-16:]
    return any(tail[at : at + 8] in text for at in range(len(tail) - 7))


SETTINGS = {
    "text": "Use %s please.",
    "a member": json.dumps({"content": "my key:\n%s\nis it good?", "n": 1}),
    "after an escaped tab": json.dumps({"content": "key\t%s\there"}),
    "JSON in JSON": json.dumps({"arguments": json.dumps({"note": "%s"})}),
    "as .NET writes it": '{"arguments":"{\\u0022note\\u0022:\\u0022%s\\u0022}"}',
    "a query": "https://api.example/v1?id=%s&x=1",
    "glued": "xyz%s",
    "multipart": '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n%s\r\n--b--\r\n',
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_keys_go_by_their_shape(shape: str, setting: str) -> None:
    secret = SHAPES[shape]
    before, after = SETTINGS[setting].split("%s")
    text = redact(f"{before}{secret}{after}".encode()).decode()
    assert not _is_in(secret, text), text
    assert "[redacted]" in text
    if setting not in ("glued", "a query"):  # where more goes than need be
        assert text.startswith(before)
        assert text.endswith(after)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_key_that_the_cut_halves_is_not_shown(shape: str) -> None:
    secret = SHAPES[shape]
    for at in range(len(secret) + 1):
        data = f'{{"content": "What is {secret[:at]}'.encode()
        text = redact(data, whole=False).decode()
        assert text == '{"content": "What is ' + ("[redacted]" if at else "")


NAMED = {
    '{"api_key": "hunter2", "n": 1}': '{"api_key": "[redacted]", "n": 1}',
    '{"apiKey":"hunter2"}': '{"apiKey":"[redacted]"}',
    '{"password" :\n "hunter2"}': '{"password" :\n "[redacted]"}',
    '{"db_password_2":"a\\"b\\\\","n":"c"}': '{"db_password_2":"[redacted]","n":"c"}',
    '{"client_secret": 12345, "n": 1}': '{"client_secret": [redacted], "n": 1}',
    '{"secrets":["a","b"],"n":1}': '{"secrets":[redacted]],"n":1}',
    '{"token":"abc"}': '{"token":"[redacted]"}',
    '{"access_token":"abc","token_type":"bearer"}': (
        '{"access_token":"[redacted]","token_type":"bearer"}'
    ),
    '{"token":"h","logprob":-0.1,"bytes":[104],"n":1}': (
        '{"token":"[redacted]","logprob":-0.1,"bytes":[redacted]],"n":1}'
    ),
    '{"tokens":["hun","ter2"]}': '{"tokens":[redacted]]}',
    '{"cookie":"a=b; c=d"}': '{"cookie":"[redacted]"}',
    "{'password': 'hunter2'}": "{'password': '[redacted]'}",
    '{"password": "never closed': '{"password": "[redacted]',
    "OPENAI_KEY=hunter2\nAPI key: hunter2": "OPENAI_KEY=[redacted]\nAPI key: [redacted]",
    "Authorization: Basic dXNlcjpwYXNz\r\nAccept: x": "Authorization: [redacted]\r\nAccept: x",
    "Cookie: a=b; c=d\nAccept: x": "Cookie: [redacted]\nAccept: x",
    '{"text":"Cookie: a=b; c=d\\nAccept: x"}': '{"text":"Cookie: [redacted]\\nAccept: x"}',
    '{"text":"X-API-Key: hunter2\\nA: x"}': '{"text":"X-API-Key: [redacted]\\nA: x"}',
    "password=hunter2 and more": "password=[redacted] and more",
    '{"text":"password: a\\\\b,c\\nd"}': '{"text":"password: [redacted]\\nd"}',
    '{"a":"{\\"password\\": \\"hun\\\\\\"ter2\\", \\"b\\": \\"c\\"}"}': (
        '{"a":"{\\"password\\": \\"[redacted]\\", \\"b\\": \\"c\\"}"}'
    ),
    '{"a":"{\\"password\\": \\"hunter2"}': '{"a":"{\\"password\\": \\"[redacted]"}',
    '{"a":"{\\u0022pwd\\u0022:\\u0022hunter2\\u0022}"}': (
        '{"a":"{\\u0022pwd\\u0022:\\u0022[redacted]\\u0022}"}'
    ),
    '{"a":"{\\u0022pwd\\u0022:\\u0022hunter2': '{"a":"{\\u0022pwd\\u0022:\\u0022[redacted]',
    'name="password"\r\n\r\nhunter2\r\n--b': 'name="password"\r\n\r\n[redacted]\r\n--b',
    "curl -H 'Authorization: Bearer a.b~c' x": "curl -H 'Authorization: [redacted]",
    "send Bearer abcd1 on": "send Bearer [redacted] on",
    "https://user:hunter2@db.example/x": "https://[redacted]@db.example/x",
    '"https:\\/\\/user:hunter2@db"': '"https:\\/\\/[redacted]@db"',
    "data:image/png;base64,iVBORw0K\n": "data:image/png;base64,[redacted]\n",
    '"data:image\\/png;base64,iV\\/BORw\\u002B0K"': '"data:image\\/png;base64,[redacted]"',
    PEM: "-----BEGIN PRIVATE KEY-----[redacted]-----END PRIVATE KEY-----",
    PEM[:40]: "-----BEGIN PRIVATE KEY-----[redacted]",
}


@pytest.mark.parametrize("text", NAMED)
def test_values_go_by_their_name_or_place(text: str) -> None:
    assert redact(text.encode()).decode() == NAMED[text]


KEPT = (
    '{"usage":{"prompt_tokens":9,"total_tokens":12,"completion_tokens_details":{"bytes":3}}}',
    '{"max_tokens": 200, "token_count": 7, "bytes": 12, "keys": ["a"], "key": "B flat"}',
    '{"password": null, "api_key":true, "secret":false}',
    '{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","system_fingerprint":"fp_44709d6fcb"}',
    '{"id":"resp_68af4030592c81938ec0a5fbab4a3e9f05438e46b5f69a3b"}',
    '{"id":"msg_68af4030592c81938ec0a5fbab4a3e9f05438e46b5f69a3b"}',
    '{"id":"7f1c54a0-29e4-4b3e-8f39-2d4a6c1e9b77"}',
    "a task-management-and-risk-based-approach, the keyboard: big, the monkey= small",
    "| --- | " + "-" * 100 + " | " + "=" * 100 + " | " + "_" * 100,
    f"{HEX}-report {HEX}_1",
    "Table-1." + "-" * 100,
    "/usr/lib/python3/site-packages/ai_proxy_mw/metrics/redact.py has no secrets in it",
    "the token is here; a cookie, a password and an authorization were asked for by the bearer",
    "write to alice@example.com or see https://example.com/a/b?c=d@e",
    "Grüße, 世界: " + "你好" * 50,
)


@pytest.mark.parametrize("text", KEPT)
def test_what_is_none_is_left(text: str) -> None:
    assert redact(text.encode()).decode() == text


def _event(index: int, **delta: object) -> bytes:
    choice = {"index": index, "delta": delta}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"


def _said(stream: bytes) -> list[str]:
    events = [json.loads(line[6:]) for line in stream.splitlines() if line]
    return [event["choices"][0]["delta"]["content"] for event in events]


def test_a_key_that_is_said_over_several_events_is_found() -> None:
    key = SHAPES["openai"]
    pieces = ["It is ", key[:2], key[2:9], key[9:], " I think", ", so ", "go"]
    stream = redact_stream(b"".join(_event(0, content=piece) for piece in pieces))
    mark = "[redacted]"
    assert _said(stream) == ["It is ", mark, mark, mark, " I think", ", so ", "go"]


def test_only_the_part_of_an_event_that_belongs_to_a_key_is_taken_out() -> None:
    stream = b"".join(_event(0, content=piece) for piece in ("a: sk-Zx8", "1mQpA73hd", "kWv0 b"))
    assert _said(redact_stream(stream)) == ["a: [redacted]", "[redacted]", "[redacted] b"]


def test_texts_that_are_said_at_the_same_time_are_told_apart() -> None:
    key = SHAPES["google"]
    events = []
    for at in range(0, len(key), 4):
        events += [_event(0, content=key[at : at + 4]), _event(1, content=" and so ")]
    said = _said(redact_stream(b"".join(events)))
    assert set(said[0::2]) == {"[redacted]"}
    assert set(said[1::2]) == {" and so "}


def test_arguments_of_tools_are_read_together() -> None:
    events = [
        b'data: {"output_index":1,"delta":"{\\"password\\":"}\n',
        b'data: {"output_index":1,"delta":" \\"hun"}\n',
        b'data: {"output_index":1,"delta":"ter2\\"}"}\n',
    ]
    stream = redact_stream(b"".join(events))
    assert b"hun" not in stream
    assert b"ter2" not in stream
    assert stream.endswith(b'"delta":"[redacted]\\"}"}\n')


def test_of_a_stream_that_is_cut_the_last_word_of_each_text_is_not_shown() -> None:
    stream = _event(0, content="my key: sk") + _event(0, content="-Zx") + b'data: {"id'
    text = redact_stream(stream, whole=False)
    assert b"Zx" not in text
    assert b"sk" not in text
    assert b"my key: " in text
    open_end = _event(0, text="key sk-") + b'data: {"choices":[{"index":0,"text":"Zx8'
    assert b"Zx8" not in redact_stream(open_end, whole=False)
    assert redact_stream(_event(0, content="key sk-")) == _event(0, content="key sk-")


def test_any_bytes_and_any_cut_are_taken() -> None:
    text = json.dumps([*NAMED, *SHAPES.values(), "世界"], ensure_ascii=False).encode()
    for end in range(0, len(text), 7):
        for whole in (True, False):
            assert isinstance(redact_stream(text[:end], whole=whole), bytes)
    for size in range(200):
        data = os.urandom(size)
        assert isinstance(redact_stream(data), bytes)


MEGABYTE = 1_000_000
ADVERSARIAL = [
    b"a", b"A", b"\\", b'"', b"'", b"secret", b'secret="', b'secret:\\"', b"secret    ", b"sk-",
    b"sk-aaaaaaaaaaaa", b"eyJ", b"eyJ.", b"a" * 63 + b".", b"aB3" * 10 + b"_.", b"aB3" * 10 + b"_",
    b"x" * 12 + b" ", b"://@", b":\\/\\/", b"PRIVATE KEY-----", b";base64,", b"\\/", b"\\u002",
    b"bearer ", b'"text":"', b'"text":"\\"', b'"text":"sk"\n', b'"text":"sk-1234567890123 "\n',
    b'"token":[', b"token", b"pwd='\\'", b"pwd\\u0022:\\u0022", b"pwd\\u0022:\\u0022x\\\\u0022",
    b"pwd" + b"\\" * 300, b"api_key", b'index":1', b'index":1"text":"',
    b"\n", b"secret\\n", b'\\"', b"-", b"\0",
]  # fmt: skip


@pytest.mark.parametrize("head", [b"A.", b'"text":"'])
def test_no_input_takes_more_than_linear_time(head: bytes) -> None:
    # Of the processor's time, since the machine may have others to serve. What is quadratic
    # takes minutes for the smaller of the two.
    for unit in ADVERSARIAL:
        spent = []
        for size in (8_000, 64_000):
            data = head + unit * (size // len(unit))
            start = time.process_time()
            redact_stream(data, whole=False)
            spent.append(time.process_time() - start)
        assert spent[1] < 0.5 + 20 * spent[0], unit


def test_a_line_of_many_numbers_and_many_texts_takes_no_longer_than_others() -> None:
    data = b'index":1"delta":"' * 20_000
    start = time.process_time()
    redact_stream(data)
    assert time.process_time() - start < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("unit", ADVERSARIAL)
def test_a_megabyte_takes_seconds_at_worst(unit: bytes) -> None:
    for head in (b"", b"secret", b'secret:\\\\\\"', b'"text":"', b"@://sk-"):
        start = time.process_time()
        redact_stream(head + unit * (MEGABYTE // len(unit)), whole=False)
        assert time.process_time() - start < 5
