"""Every Python example in the README and the docs runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.servers import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_example_runs(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_KEY_1",
        "OPENAI_KEY_2",
        "ANTHROPIC_API_KEY",
        "AZURE_KEY",
    ):
        monkeypatch.setenv(name, f"sk-up-{name}")
    monkeypatch.setenv("MOBILE_APP_KEY", "sk-app")
    monkeypatch.setenv("AI_PROXY_UPSTREAM", "fake")
    monkeypatch.setenv("AI_PROXY_ANONYMOUS", "1")
    exec(compile(code, "example", "exec"), {"__name__": "example"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
