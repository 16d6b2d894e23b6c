"""The reader of calls: whatever comes, an answer in bounded time and memory."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw import Images
from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.call import JSON_ENDPOINTS, Call
from ai_proxy_mw.schema.doubles import refuse_doubles
from ai_proxy_mw.schema.reader import Reader
from ai_proxy_mw.schema.tables import TABLES

CHAT = "POST /chat/completions"
READER = Reader()
DEEP = Reader(deep=True)
MIB = 1024 * 1024


def question(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}


def picture(size: int) -> str:
    """A PNG of some bytes as a data URL; what is in it cannot be made smaller."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 800, 600, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", bytes(range(256)) * (size // 256))
    png = b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def looking(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return question(messages=[{"role": "user", "content": parts}])


def peak(function: Any, *arguments: Any) -> int:
    """Bytes that a call of the function needs at most."""
    tracemalloc.start()
    with suppress(InvalidRequest):
        function(*arguments)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_each_endpoint_that_is_read_has_a_table() -> None:
    assert set(TABLES) == JSON_ENDPOINTS


@given(st.sampled_from(sorted(TABLES)), st.binary(max_size=200))
def test_random_bytes_are_refused(endpoint: str, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        READER.read(endpoint, body)


@given(st.sampled_from(sorted(TABLES)), st.data())
def test_a_body_that_ends_early_is_refused(endpoint: str, data: st.DataObject) -> None:
    body = json.dumps(looking(picture(512)), indent=data.draw(st.sampled_from([None, 1]))).encode()
    with pytest.raises(InvalidRequest):
        READER.read(endpoint, body[: data.draw(st.integers(0, len(body) - 1))])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "url", "image_url", "text", "source", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(sorted(TABLES)), JSON, JSON)
def test_whatever_is_json_has_no_other_end(endpoint: str, first: Any, second: Any) -> None:
    for value in (first, [first], [{"role": "user", "content": second}]):
        body = {"model": "m", "messages": value, "input": value, "prompt": value, "max_tokens": 9}
        with suppress(InvalidRequest):
            DEEP.read(endpoint, json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":' + b"[" * 200_000,
        b'{"model":"m","messages":' + b'{"a":' * 200_000,
        b'{"model":"m","messages":[{"content":%b}]}' % (b"[" * 99_000 + b"]" * 99_000),
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"x","y":%b}]}]}'
        % (b"[" * 99_000 + b"]" * 99_000),
    ],
)  # fmt: skip
def test_what_is_nested_without_end_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        DEEP.read(CHAT, body)
    assert caught.value.code == "invalid_json"


def test_a_number_without_end_is_refused() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"x":' + b"9" * 10_000 + b"}"
    with pytest.raises(InvalidRequest) as caught:
        DEEP.read(CHAT, body)
    assert caught.value.code == "invalid_json"


BEFORE = b'{"model":"m","messages":[{"role":"user","content":'
SCHEMA = b'"tools":[{"type":"function","function":{"name":"f","parameters":{"x":[%b0]}}}]}'
LISTS = b"[]," * (8 * MIB // 3)
FLOODS = {
    "new parts": BEFORE + b'[%b{"type":"x"}]}]}' % (b'{"type":"x"},' * (8 * MIB // 13)),
    "lists in a new part": BEFORE + b'[{"type":"x","y":[%b0]}]}]}' % LISTS,
    "a schema": BEFORE + b'"Hi"}],' + SCHEMA % LISTS,
    "unknown members": BEFORE
    + b'"Hi"}]%b}' % b"".join(b',"%x":0' % number for number in range(8 * MIB // 10)),
    "mistakes": b'{"model":"m","messages":[%b1]}' % LISTS,
    "short strings": BEFORE + b'"Hi"}],"modalities":[%b"a"]}' % (b'"aa",' * (8 * MIB // 5)),
    "decisive strings": BEFORE + b'"Hi"}],"x":[%b"a"]}' % (b'"model",' * MIB),
    "pictures": BEFORE + b"[%b1]}]}" % (b'{"type":"image_url","image_url":{"url":""}},' * 200_000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_values_takes_little_memory(name: str) -> None:
    body = FLOODS[name]
    for reader in (READER, DEEP):
        assert peak(reader.read, CHAT, body) < 2 * len(body)


def test_a_flood_of_strings_is_refused_before_they_are_made() -> None:
    flood = b'{"model":"m","input":[%b"a"]}' % (b'"aa",' * 300_000)
    with pytest.raises(InvalidRequest) as caught:
        READER.read("POST /moderations", flood)
    assert caught.value.code == "request_too_complex"


def test_commas_and_brackets_in_texts_are_no_values() -> None:
    table = '[1],"{",' * 100_000
    body = json.dumps(question(messages=[{"role": "user", "content": table}])).encode()
    for reader in (READER, DEEP):
        assert reader.read(CHAT, body).model == "m"


NAME_OF_ESCAPES = r"""
from pathlib import Path
from ai_proxy_mw.schema.members import members

def most():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

body = b'{"model":"a","x":{"model":1},"%b":1}' % (b"\\" * 2**21)
before = most()
members(body)
print(most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")
def test_a_name_of_many_escapes_takes_little_memory() -> None:
    """That of the regular expressions' engine, of which tracemalloc knows nothing."""
    ran = subprocess.run(
        [sys.executable, "-c", NAME_OF_ESCAPES], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) < 100 * 1024  # more where each escape is kept in mind


def test_a_flood_of_numbers_is_refused() -> None:
    body = b'{"model":"m","input":[%b[1]]}' % (b"[1]," * (2 * MIB))
    with pytest.raises(InvalidRequest) as caught:
        READER.read("POST /embeddings", body)
    assert caught.value.code == "request_too_complex"
    tokens = b'{"model":"m","input":[[%b1]]}' % (b"12345," * 300_000)
    assert READER.read("POST /embeddings", tokens).model == "m"


def test_ten_pictures_take_no_memory_of_their_own() -> None:
    body = json.dumps(looking(*[picture(MIB) for _ in range(10)])).encode()
    assert len(body) > 13 * MIB
    reader = Reader(images=Images(max_total_bytes=100 * MIB))
    assert len(reader.read(CHAT, body).pictures) == 10  # and the decoder is made
    assert peak(reader.read, CHAT, body) < MIB


def test_a_new_part_beside_pictures_takes_their_size_once() -> None:
    content = looking(*[picture(MIB) for _ in range(4)])
    content["messages"][0]["content"].insert(0, {"type": "hologram"})
    body = json.dumps(content).encode()
    assert peak(READER.read, CHAT, body) < 2.5 * len(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"x":[{"a":1,"b":{"c":1,"c":1}}]}',
        b'{"x":{"a":1,"\\u0061":2}}',
    ],
)
def test_doubles_are_found_however_deep(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        refuse_doubles(body)
    assert caught.value.code == "duplicate_parameter"
    refuse_doubles(body.replace(b"a", b"z", 1).replace(b'"c":1,', b'"d":1,'))


@pytest.mark.parametrize(
    "message",
    [
        b'{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}],"content":""}',
        b'{"role":"user","content":[{"type":"file","file":{"file_data":"x"}}],"content":""}',
        b'{"role":"user","content":[{"type":"image_url","im\\u0061ge_url":"x"}],"content":""}',
    ],
)
def test_media_cannot_stand_in_the_first_of_two_members(message: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        READER.read(CHAT, b'{"model":"m","messages":[%b]}' % message)
    assert caught.value.code == "duplicate_parameter"


def test_a_long_string_is_not_cut_out_of_another_one() -> None:
    long = b"//uQ" + b"A" * 60
    refuse_doubles(b'{"text":"\\%b","audio":"%b"}' % (long, long), [long])


def test_long_strings_need_not_be_looked_at() -> None:
    long = b"A" * 100_000
    body = b'{"a":"%b","b":["%b-","%b"],"c":{"d":1,"d":2}}' % (b"A" * 99_000, long, long)
    for strings in ([], [long], [b"short", long + b"-", long], [b"B" * 1000]):
        with pytest.raises(InvalidRequest) as caught:
            refuse_doubles(body, strings)
        assert caught.value.code == "duplicate_parameter"
    fine = body.replace(b'"d":2', b'"e":2')
    refuse_doubles(fine, [long + b"-", long])
    assert peak(refuse_doubles, fine, [long + b"-", long]) < 450_000  # the first one is not named


def test_utf8_is_looked_at_over_the_borders_of_slices() -> None:
    filler = "x" * (256 * 1024 - 70)
    for shift in range(12):
        text = f"{filler}{'x' * shift}ä€😀"
        body = json.dumps(
            question(messages=[{"role": "user", "content": text}]), ensure_ascii=False
        )
        assert READER.read(CHAT, body.encode()).model == "m"
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        READER.read(CHAT, body.encode()[:-8] + b'\xf0\x9f"}]}')


# -- calls that are changed ----------------------------------------------------------------------


def test_a_changed_call_keeps_the_rest_to_the_last_digit() -> None:
    body = b'{ "x" : 1.10, "model" : "a" , "y":{"z":[1e2, 0.10]} , "n":1}'
    call = Call(CHAT, body)
    other = call.replace(model="b", n=None, new=[1]).replace(new=[2], user="u")
    assert not call.changed
    assert call.body() == body
    assert other.changed
    assert other.model == "b"
    assert (other.get("n"), other.get("new"), other.get("user"), other.get("y")) == (
        None, [2], "u", {"z": [100.0, 0.1]},
    )  # fmt: skip
    assert call.model == "a"
    assert call.get("absent") is None
    assert (
        other.body()
        == b'{"x":1.10,"model":"b","y":{"z":[1e2, 0.10]},"n":null,"new":[2],"user":"u"}'
    )


def test_what_is_got_is_the_callers_own() -> None:
    call = Call(CHAT, json.dumps(question()).encode())
    call.get("messages")[0]["content"] = "changed"
    assert call.get("messages")[0]["content"] == "Hi"
    changed = call.replace(messages=[{"role": "user", "content": "one"}])
    changed.get("messages")[0]["content"] = "two"
    assert json.loads(changed.body())["messages"][0]["content"] == "one"


def test_a_long_conversation_may_be_changed() -> None:
    messages = [{"role": "user", "content": "Hi"}] * 60_000
    call = Call(CHAT, json.dumps(question(messages=messages)).encode())
    assert json.loads(call.replace(model="b").body())["model"] == "b"
    flood = b'{"model":"m"%b}' % b"".join(b',"%x":0' % number for number in range(110_000))
    with pytest.raises(InvalidRequest) as caught:
        Call(CHAT, flood).replace(model="b").body()
    assert caught.value.code == "request_too_complex"


def test_a_member_that_cannot_be_read_is_named() -> None:
    call = Call(CHAT, b'{"model":"m","tools":1e400}')
    with pytest.raises(InvalidRequest) as caught:
        call.get("tools")
    assert (caught.value.param, caught.value.code) == ("tools", "invalid_type")


def test_the_decoder_is_quick_where_nothing_is_wrong() -> None:
    """Not timed: the judge, which is slow, is not asked."""
    body = json.dumps(question(temperature=0.5)).encode()
    reader = Reader()
    assert reader._found(CHAT, body) == ([], False)
    assert reader._found(CHAT, body.replace(b'"content": "Hi"', b'"content": [{"type": "x"}]')) == (
        [],
        True,
    )
    assert msgspec.json.decode(body)["temperature"] == 0.5
