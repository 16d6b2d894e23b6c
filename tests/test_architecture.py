"""The house: who may import whom, and what is shown outside."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ai_proxy_mw

PACKAGE = Path(ai_proxy_mw.__file__).parent
ROOT = PACKAGE.parent

# Rooms from the door inwards; each may import only from rows after its own, or from its own row
# where the row is one room. `_types` knows nothing.
FLOORS: list[set[str]] = [
    {"__main__", "__init__"},
    {"_cache_command", "_ping_command", "_report_command"},
    {"_ping", "_terminal"},
    {"testing"},
    {"contrib"},
    {"asgi", "wsgi"},
    {"_env"},
    {"_env_upstreams"},
    {"_proxy"},
    {"_pipeline"},
    {"dashboard"},
    {"_records", "_rules", "_ways"},
    {"stages"},
    {"caching", "limiting"},
    {"routing"},
    {"metrics"},
    {"accounting"},
    {"schema"},
    {"_sse", "stores"},
    {"fetching", "upstream"},
    {"_bridge", "_calls", "_delivery", "_leaving", "_loop", "_paths"},
    {"_under_way"},
    {"_terms"},
    {"_stop"},
    {"_rounds", "_signals"},
    {"_header_rules"},
    {"_subrequest"},
    {"_subrequest_asgi", "_subrequest_cache", "_subrequest_subject", "_subrequest_wsgi"},
    {"_subrequest_answer"},
    {"_identify"},
    {"_hook_threads", "_hooks"},
    {
        "_api_keys",
        "_caps",
        "_checks",
        "_clients",
        "_config",
        "_cors",
        "_endpoints",
        "_encoding",
        "_incoming",
        "_media",
    },
    {"_identity"},
    {"_ahead", "_base_url", "_circuit", "_concurrency", "_limits", "_models", "_retry"},
    {"metrics.base", "stores.base", "upstream.base"},
    {"_http", "_errors", "_numbers", "_per_loop"},
    {"_types"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Imported late, inside a function, for a reason that stands beside the import.
LATE = {("_proxy", "_env"), ("_env", "testing")}


def _room(module: str) -> str:
    parts = module.split(".")[1:]
    if parts[1:] == ["base"]:
        return ".".join(parts)
    return parts[0] if parts else "__init__"


def _imports(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return [
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing_only
    ]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_inwards(path: Path) -> None:
    module = ".".join(["ai_proxy_mw", *path.relative_to(PACKAGE).with_suffix("").parts])
    room = _room(module.removesuffix(".__init__") if "/" in str(path) else module)
    if path.parent == PACKAGE and path.stem == "__init__":
        room = "__init__"
    for imported in _imports(path):
        if not imported.startswith("ai_proxy_mw."):
            continue
        target = _room(imported)
        if target != room and (room, target) not in LATE:
            assert FLOOR[room] < FLOOR[target], f"{room} must not import {target}"


def test_stages_do_not_know_each_other() -> None:
    for path in (PACKAGE / "stages").glob("*.py"):
        others = [name for name in _imports(path) if name.startswith("ai_proxy_mw.stages")]
        assert others == [], path


def test_the_public_face_is_sorted_and_whole() -> None:
    names = ai_proxy_mw.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    public = {
        name
        for name, value in vars(ai_proxy_mw).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("ai_proxy_mw")
    }
    assert public - set(names) == set()


def test_the_changelog_knows_the_version() -> None:
    assert f"## {ai_proxy_mw.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_names_that_are_imported_late_are_there_and_no_others() -> None:
    for name in ai_proxy_mw.__all__:
        assert getattr(ai_proxy_mw, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Cashe'"):
        _ = ai_proxy_mw.Cashe  # type: ignore[attr-defined]
