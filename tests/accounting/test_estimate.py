"""What a call may use, before it is let in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ai_proxy_mw import ConfigurationError, Estimate
from ai_proxy_mw.accounting.estimate import DEFAULT_OUTPUT, MOST_OUTPUT, estimate
from ai_proxy_mw.schema.call import Call


def of(endpoint: str = "POST /chat/completions", **body: Any) -> Estimate:
    return estimate(Call(endpoint, json.dumps(body).encode()))


def said(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def test_text_is_a_quarter_of_its_characters() -> None:
    messages = [{"role": "user", "content": "x" * 100}, {"role": "assistant"}]
    assert of(messages=messages) == Estimate(25 + 8, DEFAULT_OUTPUT)
    assert of(messages=said({"type": "text", "text": "x" * 100})).input_tokens == 25 + 4
    assert of("POST /completions", prompt="x" * 98).input_tokens == 25
    assert of("POST /responses", input="x" * 98, instructions="y" * 98).input_tokens == 50
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert of(messages=[], tools=tools).input_tokens == -(-len(json.dumps(tools)) // 4)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_the_answer_is_what_the_call_allows(name: str) -> None:
    def allowed(most: Any, **more: Any) -> int:
        return of(**{"messages": [], name: most, **more}).output_tokens

    assert allowed(50) == 50
    assert allowed(50, n=3) == 150
    assert allowed(10**8) == MOST_OUTPUT
    assert allowed(10**30) == allowed("1e9") == allowed(50, n=10**20) == MOST_OUTPUT
    assert allowed("50") == allowed(50.0) == allowed(49.5) == 50
    for wrong in (0, -1, 0.5, "", "many", None, True, [5]):
        assert allowed(wrong) == DEFAULT_OUTPUT


@pytest.mark.parametrize("wrong", [-1, 2.5, True, None, 10**10])
def test_an_estimate_is_whole_and_no_credit(wrong: Any) -> None:
    for tokens in ((wrong, 0), (0, wrong)):
        with pytest.raises(ConfigurationError, match="write whole numbers"):
            Estimate(*tokens)


@pytest.mark.parametrize("endpoint", ["POST /embeddings", "POST /moderations"])
def test_what_answers_nothing_costs_what_goes_in(endpoint: str) -> None:
    assert of(endpoint, input="x" * 98) == Estimate(25, 0)


def test_pictures_and_sound_cost_by_their_rules_and_not_as_text() -> None:
    data = "data:image/png;base64," + "A" * 1_000_000
    pictures = {
        85: [
            {"type": "image_url", "image_url": {"url": data, "detail": "low"}},
            {"type": "input_image", "image_url": data, "detail": "low"},
        ],
        1105: [
            {"type": "image_url", "image_url": {"url": data}},
            {"type": "input_image", "image_url": data},
        ],
    }
    for tokens, parts in pictures.items():
        for part in parts:
            assert of(messages=said(part)).input_tokens == tokens + 4
            assert of("POST /responses", input=said(part)).input_tokens == tokens + 4
    source = {"type": "image", "source": {"type": "base64", "data": "A" * 10**6}}
    assert of("POST /messages", messages=said(source)).input_tokens == 1600 + 4
    assert of(messages=said(source)).input_tokens == 1105 + 4
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 106_660, "format": "mp3"}}
    assert of(messages=said(sound)).input_tokens == 100 + 4 + 1
    odd = {"type": "input_audio", "input_audio": "x"}
    assert of(messages=said(odd)).input_tokens == 1 + 4
    document = {"type": "file", "file": {"file_id": "x" * 100}}
    assert 25 < of(messages=said(document)).input_tokens < 40


def test_what_is_not_understood_costs_as_text() -> None:
    messages = [{"role": "user", "content": {"strange": "x" * 100}}]
    assert of(messages=messages).input_tokens == -(-len(json.dumps(messages)) // 4)
    assert of(messages="x" * 98).input_tokens == 25
