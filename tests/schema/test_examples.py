"""What the providers' references show passes, and the media in it are found."""

from __future__ import annotations

import pytest

from ai_proxy_mw._errors import InvalidRequest
from ai_proxy_mw.schema.call import JSON_ENDPOINTS
from ai_proxy_mw.schema.tables import TABLES
from tests.schema.doors import REFUSED, decode, judge, plain
from tests.schema.example import Example
from tests.schema.examples import EXAMPLES

# Left to the judge even so: a picture or sound that stands among other types.
LEFT = {
    "chat/completions: a picture as a mere link, as Mistral takes it",
    "chat/completions: sound as a mere text, as Mistral takes it",
}


def test_each_endpoint_has_a_table_and_examples() -> None:
    assert set(TABLES) == JSON_ENDPOINTS == {example.endpoint for example in EXAMPLES}
    assert all(endpoint == table.endpoint for endpoint, table in TABLES.items())
    assert len({str(example) for example in EXAMPLES}) == len(EXAMPLES) > 70


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_the_judge_takes_it(example: Example) -> None:
    found = judge(example.endpoint, example.body)
    assert tuple((each.kind, each.param, each.declared) for each in found) == example.media


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_the_typed_decoder_takes_it(example: Example) -> None:
    if str(example) in LEFT:
        with pytest.raises(REFUSED):
            decode(example.endpoint, example.body)
        return
    try:
        found = decode(example.endpoint, example.body)
    except REFUSED:
        assert not example.strict  # something new is left to the judge
    else:
        assert plain(found) == plain(judge(example.endpoint, example.body))


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_strictly_only_what_is_known_passes(example: Example) -> None:
    if not example.strict:
        with pytest.raises(REFUSED):
            decode(example.endpoint, example.body, strict=True)
        with pytest.raises(InvalidRequest):
            judge(example.endpoint, example.body, strict=True)
        return
    found = judge(example.endpoint, example.body, strict=True)
    if str(example) not in LEFT:
        assert plain(decode(example.endpoint, example.body, strict=True)) == plain(found)
