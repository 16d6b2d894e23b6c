"""What upstreams and callers say of waiting."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_proxy_mw._types import RawHeaders
from ai_proxy_mw.routing.patience import LONGEST, client_patience, retry_after, should_retry

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
MS, AFTER = b"retry-after-ms", b"retry-after"
WHOLE, READ = b"x-stainless-timeout", b"x-stainless-read-timeout"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"120", 120.0),
        (b" 7\t", 7.0),
        (b"1.5", 1.5),
        (b"2.", 2.0),
        (b"00000003", 3.0),
        (b"86401", LONGEST),
        (b"9" * 40, LONGEST),
        (b"9" * 41, None),
        (b"9" * 100_000, None),
        (b"", None),
        (b"-1", None),
        (b"+1", None),
        (b"1e3", None),
        (b"1_0", None),
        (b".5", None),
        (b"0x10", None),
        (b"nan", None),
        (b"inf", None),
        (b"Infinity", None),
        (b"soon", None),
        (b"120, 120", None),
        ("٣".encode(), None),
        (b"\xb2", None),
        (b"1\n", None),
        (b"5\0", None),
    ],
)
def test_seconds(value: bytes, seconds: float | None) -> None:
    assert retry_after([(b"date", b"x"), (AFTER, value)], NOW) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        (b"Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        (b"Sun Nov  6 08:50:37 1994", 60.0),
        (b"Sun, 06 Nov 1994 09:50:37 +0100", 60.0),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        (b"Sun, 06 Nov 1994 08:49:36 GMT", 0.0),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (b"Sun, 06 Nov 2094 08:49:37 GMT", LONGEST),
        (b"Sun, 06 Nov 99999 08:49:37 GMT", None),
        (b"Sun, 00 Nov 1994 08:49:37 GMT", None),
        (b"Sun, 31 Nov 1994 08:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 25:49:37 GMT", None),
        (b"Fri, 31 Dec 9999 23:59:59 -2359", LONGEST),
        (b"Sat, 01 Jan 0001 00:00:00 +2359", LONGEST),
        (b"Sun, 06 Foo 1994 08:49:37 GMT", None),
        (b"Sun, 06 Nov 1994", None),
        (b"Sun, 06 Nov 1994 08:49:37 (a comment) GMT", None),
        (b"Sun, 06 Nov 1994 08:50:37 GMT" + b" " * 50_000 + b"x", None),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_dates_wherever_this_machine_is(
    value: bytes, seconds: float | None, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        found = retry_after([(AFTER, value)], NOW)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found == seconds


def test_a_date_is_seen_from_the_middle_of_a_second() -> None:
    assert retry_after([(AFTER, b"Sun, 06 Nov 1994 08:49:38 GMT")], NOW + 0.25) == 0.75


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(AFTER, b"2"), (MS, b"1250")], 1.25),
        ([(MS, b"1250.5")], 1.2505),
        ([(MS, b"0"), (AFTER, b"2")], 0.0),
        ([(MS, b"soon"), (AFTER, b"2")], 2.0),
        ([(MS, b"-5"), (AFTER, b"2")], 2.0),
        ([(MS, b"nan")], None),
        ([(MS, b"9" * 40)], LONGEST),
        ([(AFTER, b"2"), (AFTER, b"9")], 2.0),
        ([], None),
    ],
)
def test_milliseconds_go_before_seconds(headers: RawHeaders, seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "wish"),
    [
        (b"true", True),
        (b"TRUE", True),
        (b" false ", False),
        (b"1", None),
        (b"", None),
        (b"true, false", None),
        (None, None),
    ],
)
def test_whether_to_retry(value: bytes | None, wish: bool | None) -> None:
    headers: RawHeaders = [] if value is None else [(b"x-should-retry", value)]
    assert should_retry([(b"x", b"true"), *headers]) is wish


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(WHOLE, b"600")], 600.0),
        ([(READ, b"600.0")], 600.0),
        ([(WHOLE, b"60"), (READ, b"30")], 30.0),
        ([(WHOLE, b"20"), (READ, b"30")], 20.0),
        ([(WHOLE, b"NOT_GIVEN"), (READ, b"30")], 30.0),
        ([(WHOLE, b"NOT_GIVEN")], None),
        ([(WHOLE, b"None")], None),
        ([(WHOLE, b"0")], None),
        ([(WHOLE, b"0"), (READ, b"5")], 5.0),
        ([(WHOLE, b"-3")], None),
        ([(WHOLE, b"nan")], None),
        ([(WHOLE, b"1e-9")], None),
        ([(WHOLE, b"9" * 40)], LONGEST),
        ([], None),
    ],
)
def test_the_patience_of_a_caller(headers: RawHeaders, seconds: float | None) -> None:
    assert client_patience(headers) == seconds


def test_the_sdk_writes_it_so() -> None:
    import openai
    from openai._models import FinalRequestOptions

    client = openai.OpenAI(api_key="k", base_url="http://localhost", timeout=7.5)
    request = client._build_request(FinalRequestOptions(method="get", url="/models"))
    lines = [(name.lower(), value) for name, value in request.headers.raw]
    assert client_patience(lines) == 7.5
    assert (READ, b"7.5") in lines
    client.close()


DATELIKE = st.text("SunMonJadec0123456789:,-+ GMTZ.", max_size=45).map(str.encode)


@given(st.one_of(st.binary(max_size=60), DATELIKE), st.floats(0, 4e9))
def test_nothing_that_is_said_does_harm(value: bytes, now: float) -> None:
    headers = [(name, value) for name in (AFTER, MS, WHOLE, READ, b"x-should-retry")]
    for seconds in (retry_after(headers, now), retry_after([(AFTER, value)], now)):
        assert seconds is None or 0 <= seconds <= LONGEST
    patience = client_patience(headers)
    assert patience is None or 0 < patience <= LONGEST
    assert should_retry(headers) in (None, True, False)
