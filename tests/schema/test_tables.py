"""Each wrong request is refused by both, and the error names the first mistake."""

from __future__ import annotations

from itertools import groupby

import pytest

from ai_proxy_mw._errors import InvalidRequest
from tests.schema.doors import REFUSED, decode, judge
from tests.schema.wrong import RIGHT, WRONG, Base, Wrong


def test_there_are_many() -> None:
    assert len(WRONG) >= 300
    for _, same in groupby(sorted(map(repr, WRONG))):
        assert len(list(same)) == 1


@pytest.mark.parametrize("base", RIGHT, ids=lambda base: base.endpoint)
def test_without_the_change_it_passes(base: Base) -> None:
    assert judge(base.endpoint, base.body) == judge(base.endpoint, base.body, strict=True)
    decode(base.endpoint, base.body)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_the_judge_names_the_mistake(wrong: Wrong) -> None:
    with pytest.raises(InvalidRequest) as caught:
        judge(wrong.endpoint, wrong.body)
    assert (caught.value.param, caught.value.code) == (wrong.param, wrong.code)
    assert caught.value.status == 400
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_the_typed_decoder_refuses_it(wrong: Wrong) -> None:
    with pytest.raises(REFUSED):
        decode(wrong.endpoint, wrong.body)
