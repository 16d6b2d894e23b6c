"""Who in the package opens connections: the upstream's room, the fetcher's wire, the demo."""

from __future__ import annotations

import ast
from pathlib import Path

import ai_proxy_mw

PACKAGE = Path(ai_proxy_mw.__file__).parent

OPENERS = {
    "AsyncHTTPTransport",
    "HTTPConnection",
    "HTTPSConnection",
    "HTTPTransport",
    "create_connection",
    "open_connection",
    "sock_connect",
    "start_tls",
    "urlopen",
}

ALLOWED = {
    "__main__.py",  # the demo asks itself
    "fetching/wire.py",
    "upstream/_dial.py",  # dials what the owner has configured
}


def _names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return attributes | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_one_way_out() -> None:
    found = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if _names(path) & OPENERS
    }
    assert found == ALLOWED


def test_the_wire_is_used_by_the_fetcher_alone() -> None:
    users = {
        path.name for path in PACKAGE.rglob("*.py") if "fetching.wire import" in path.read_text()
    }
    assert users == {"fetcher.py"}
