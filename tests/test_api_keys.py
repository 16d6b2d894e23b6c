"""The keys that the app has issued: whose they are, and what does not pass for one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw import AIProxy, ConfigurationError, Forbidden, Identity, hash_api_key
from ai_proxy_mw._api_keys import ApiKeys
from ai_proxy_mw.testing import FakeUpstream
from tests.bare import DOORS, exchange
from tests.reuse.cell import Recorder, upstream

ALICE, BOB_1, BOB_2, CAROL = "sk-alice", "sk-bob-1", "sk-bob-2", "sk-carol"
ISSUED: Mapping[str, Any] = {
    "alice": ALICE,
    "bob": (BOB_1, hash_api_key(BOB_2)),
    "carol": hash_api_key(CAROL),
}


class Served:
    def __init__(self, door: str, url: str, fake: FakeUpstream, recorder: Recorder) -> None:
        self.door = door
        self.url = url
        self.fake = fake
        self.recorder = recorder

    def raw(self, *lines: bytes) -> int:
        """The status of a call with exactly these header lines."""
        return exchange(
            self.url, b"\r\n".join([b"GET /v1/models HTTP/1.1", b"Host: app", *lines, b"", b""])
        )[0]


@pytest.fixture(scope="module", params=DOORS)
def _served(request: pytest.FixtureRequest) -> Iterator[Served]:
    fake, recorder = FakeUpstream(), Recorder()
    proxy = recorder.watch(AIProxy(upstream=upstream(fake), api_keys=ISSUED))
    with DOORS[request.param](proxy) as url:
        yield Served(request.param, url, fake, recorder)


@pytest.fixture
def served(_served: Served) -> Served:
    _served.fake.reset()
    _served.recorder.subjects.clear()
    return _served


@pytest.mark.parametrize(
    ("line", "subject"),
    [
        (b"Authorization: Bearer sk-alice", "alice"),
        (b"Authorization: BEARER sk-bob-1", "bob"),
        (b"authorization:Bearer sk-bob-2", "bob"),
        (b"Authorization: Bearer sk-carol \t ", "carol"),
        (b"Authorization: Bearer \t sk-carol", "carol"),
        (b"X-Api-Key: sk-alice", "alice"),
        (b"X-API-KEY:   sk-carol  ", "carol"),
        (b"X-Api-Key: sk-alice\r\nAuthorization: Bearer sk-alice", "alice"),
    ],
)
def test_a_key_names_its_bearer(served: Served, line: bytes, subject: str) -> None:
    assert served.raw(line) == 200
    assert list(served.recorder.subjects.values()) == [subject]
    assert len(served.fake.requests) == 1


# What some server or framework on the way might take for a key. None is let in: 401, or 400 from
# a server that would not have the line at all.
TRICKS = {
    "another case": b"Authorization: Bearer SK-ALICE",
    "a prefix": b"Authorization: Bearer sk-alic",
    "one more": b"Authorization: Bearer sk-alicee",
    "nothing": b"Authorization:",
    "no key": b"Authorization: Bearer",
    "an empty key": b"Authorization: Bearer   ",
    "an empty x-api-key": b"X-Api-Key:",
    "a tab for the space": b"Authorization: Bearer\tsk-alice",
    "a no-break space behind": b"Authorization: Bearer sk-alice\xa0",
    "a no-break space before": b"Authorization: Bearer \xa0sk-alice",
    "a no-break space in x-api-key": b"X-Api-Key: sk-alice\xa0",
    "UTF-8's no-break space": b"Authorization: Bearer sk-alice\xc2\xa0",
    "a zero-width space": b"X-Api-Key: sk-alice\xe2\x80\x8b",
    "a byte order mark": b"X-Api-Key: \xef\xbb\xbfsk-alice",
    "a vertical tab": b"X-Api-Key: sk-alice\x0b",
    "NUL": b"X-Api-Key: sk-alice\x00",
    "quotes": b'Authorization: Bearer "sk-alice"',
    "b64token's padding": b"Authorization: Bearer sk-alice=",
    "a comma": b"Authorization: Bearer sk-alice,",
    "two in one": b"Authorization: Bearer sk-alice, Bearer sk-alice",
    "two in one x-api-key": b"X-Api-Key: sk-alice, sk-alice",
    "the scheme twice": b"Authorization: Bearer Bearer sk-alice",
    "no scheme": b"Authorization: sk-alice",
    "Basic": b"Authorization: Basic c2stYWxpY2U6",
    "Token": b"Authorization: Token sk-alice",
    "a colon": b"Authorization: Bearer: sk-alice",
    "percent": b"Authorization: Bearer sk%2Dalice",
    "another header": b"Proxy-Authorization: Bearer sk-alice",
    "api-key": b"Api-Key: sk-alice",
    "a cookie": b"Cookie: x-api-key=sk-alice; authorization=Bearer sk-alice",
    "an underscore": b"X_Api_Key: sk-alice",
    "underscores": b"x_api-key: sk-alice",
    "an underscore behind": b"Authorization_: Bearer sk-alice",
    "WSGI's name": b"HTTP_AUTHORIZATION: Bearer sk-alice",
    "a space before the colon": b"X-Api-Key : sk-alice",
    "two lines, equal": b"Authorization: Bearer sk-alice\r\nAuthorization: Bearer sk-alice",
    "two lines": b"Authorization: Bearer sk-alice\r\nAuthorization: Bearer sk-bob-1",
    "two lines, one empty": b"Authorization: Bearer sk-alice\r\nAuthorization:",
    "an empty line first": b"Authorization:\r\nAuthorization: Bearer sk-alice",
    "two kinds": b"Authorization: Basic eA==\r\nAuthorization: Bearer sk-alice",
    "two x-api-keys": b"X-Api-Key: sk-alice\r\nX-Api-Key: sk-alice",
    "two of different case": b"x-api-key: sk-alice\r\nX-API-KEY: sk-bob-1",
    "both, different": b"Authorization: Bearer sk-alice\r\nX-Api-Key: sk-bob-1",
    "both, one wrong": b"Authorization: Bearer sk-alice\r\nX-Api-Key: nonsense",
    "both, one empty": b"Authorization: Bearer sk-alice\r\nX-Api-Key:",
    "both, another claim": b"Authorization: Basic eA==\r\nX-Api-Key: sk-alice",
    "both, an empty claim": b"Authorization: Bearer\r\nX-Api-Key: sk-alice",
    "a folded scheme": b"X-A: b\r\n Authorization: Bearer sk-alice",
    "a key cut by a fold": b"Authorization: Bearer sk-\r\n alice",
    "a second key in a fold": b"Authorization: Bearer sk-alice\r\n sk-bob-1",
    "a fold behind": b"X-Api-Key: sk-alice\r\n , x",
    "its hash": b"X-Api-Key: " + hash_api_key(ALICE).encode(),
    "a stored hash": b"Authorization: Bearer " + hash_api_key(CAROL).encode(),
    "the digits of a hash": b"X-Api-Key: " + hash_api_key(CAROL)[7:].encode(),
    "the subject": b"Authorization: Bearer alice",
}


@pytest.mark.parametrize("name", TRICKS)
def test_nothing_else_passes_for_a_key(served: Served, name: str) -> None:
    assert served.raw(TRICKS[name]) in (400, 401)
    assert set(served.recorder.subjects.values()) <= {""}
    assert served.fake.requests == []


def test_no_key_is_read_from_the_address_or_the_body(served: Served) -> None:
    for query in ("api_key=sk-alice", "key=sk-alice", "access_token=sk-alice"):
        assert httpx.get(f"{served.url}/v1/models?{query}").status_code == 401
    form = {"access_token": ALICE, "model": "fake-1", "messages": []}
    assert httpx.post(f"{served.url}/v1/chat/completions", json=form).status_code == 401
    assert httpx.post(f"{served.url}/v1/chat/completions", data=form).status_code == 401
    url = served.url.replace("//", "//Bearer:sk-alice@")
    assert httpx.get(f"{url}/v1/models").status_code == 401
    assert served.fake.requests == []


def test_no_key_goes_upstream(served: Served) -> None:
    assert served.raw(b"Authorization: Bearer sk-alice", b"X-Api-Key: sk-alice") == 200
    [seen] = served.fake.requests
    assert all(b"sk-alice" not in value for _, value in seen.headers)


# -- a function that finds whose key it is ------------------------------------------------------


FOUND: dict[str, str | Identity] = {ALICE: "alice", BOB_1: Identity("bob", models=["fake-2"])}


def _find_sync(key: str) -> str | Identity | None:
    if key == "raises":
        raise LookupError("the database is gone")
    if key == "forbidden":
        raise Forbidden("This key is locked.")
    return FOUND.get(key)


async def _find(key: str) -> str | Identity | None:
    return _find_sync(key)


def _find_later(key: str) -> Any:
    return _find(key)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("find", [_find, _find_sync, _find_later])
def test_a_function_finds_whose_key_it_is(
    fake: FakeUpstream, door: str, find: Any, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    proxy = recorder.watch(AIProxy(upstream=upstream(fake), api_keys=find))
    body = {"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}]}
    with DOORS[door](proxy) as url:
        for key, status in (
            (ALICE, 200),
            (BOB_1, 403),  # not this model
            ("sk-unknown", 401),
            ("forbidden", 403),
            ("raises", 500),
        ):
            headers = {"authorization": f"Bearer {key}"}
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers)
            assert answer.status_code == status, key
        assert "database" not in answer.text
        assert httpx.get(f"{url}/v1/models").status_code == 401  # and it is not asked at all
    assert "the database is gone" in caplog.text
    assert list(recorder.subjects.values()) == ["alice", "bob", "", "", "", ""]
    assert len(fake.requests) == 1


def test_a_function_is_not_asked_about_what_is_no_key() -> None:
    asked: list[str] = []

    def find(key: str) -> str | None:
        asked.append(key)
        return "anybody"

    proxy = AIProxy(upstream=upstream(FakeUpstream()), api_keys=find)
    with DOORS["uvicorn"](proxy) as url:
        served = Served("uvicorn", url, FakeUpstream(), Recorder())
        for name in ("nothing", "an empty key", "Basic", "two lines", "both, different"):
            assert served.raw(TRICKS[name]) == 401
        assert asked == []
        assert served.raw(b"Authorization: Bearer sk-1") == 200
    assert asked == ["sk-1"]


# -- what is stored -----------------------------------------------------------------------------


def test_a_hash_is_that_of_sha256() -> None:
    assert hash_api_key("sk-1") == f"sha256:{hashlib.sha256(b'sk-1').hexdigest()}"


@given(st.text('!"#abc~:', min_size=1), st.text('!"#abc~:', min_size=1))
def test_two_keys_have_two_hashes(one: str, other: str) -> None:
    assert (hash_api_key(one) == hash_api_key(other)) == (one == other)


@pytest.mark.parametrize(
    ("issued", "why"),
    [
        ({}, "nobody could call"),
        ({"alice": []}, "nobody could call"),
        ({"alice": ""}, "visible ASCII"),
        ({"alice": "sk alice"}, "visible ASCII"),
        ({"alice": "sk-alice\n"}, "visible ASCII"),
        ({"alice": "sk-zoë"}, "visible ASCII"),
        ({"alice": b"sk-alice"}, "visible ASCII"),
        ({"alice": 7}, "visible ASCII"),
        ({"alice": None}, "visible ASCII"),
        ({"alice": [None]}, "visible ASCII"),
        ({"": "sk-alice"}, "not blank"),
        ({"  ": "sk-alice"}, "not blank"),
        ({7: "sk-alice"}, "not blank"),
        ({"alice": hash_api_key("sk-1").upper()}, "64 digits in small letters"),
        ({"alice": hash_api_key("sk-1")[:-1]}, "64 digits in small letters"),
        ({"alice": "sk-1", "bob": "sk-1"}, "two subjects"),
        ({"alice": "sk-1", "bob": hash_api_key("sk-1")}, "two subjects"),
    ],
)
def test_what_cannot_be_issued_is_refused_and_not_shown(issued: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        ApiKeys(issued)
    assert "sk-" not in str(caught.value).replace("{'subject': 'key'}", "")


def test_the_same_key_may_be_there_twice_for_one() -> None:
    assert repr(ApiKeys({"alice": ["sk-1", "sk-1", hash_api_key("sk-1")]})) == "ApiKeys(['alice'])"


def test_nothing_of_a_key_is_kept() -> None:
    keys = ApiKeys(ISSUED)
    held = repr(vars(keys))
    for key in (ALICE, BOB_1, BOB_2, CAROL):
        assert key not in held
        assert hash_api_key(key)[7:] not in held
    assert all(hashlib.sha256(ALICE.encode()).digest() != digest for digest in keys._subjects)
