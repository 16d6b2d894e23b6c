"""Writes docs/validation-fields.md out of the tables: `python -m tests.schema.write_docs`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from ai_proxy_mw.schema.spec import (
    Either,
    Fields,
    Flag,
    Kind,
    ListOf,
    MapOf,
    Media,
    Number,
    Table,
    Text,
    Variants,
    Whole,
)
from ai_proxy_mw.schema.tables import TABLES

PAGE = Path(__file__).parents[2] / "docs" / "validation-fields.md"

_INTRO = """\
# What each endpoint takes

What is in these tables is checked before a request leaves; what is not, passes as it came.
A wrong member is answered with status 400, with its path as `param` and one of the codes below;
of several mistakes, the first by position.

In a path, `[]` is each item of an array, `{}` each member of an object with free names, and a word
in round brackets says for which type or role a row holds. An object whose type is not in its table
is something new, and passes, unless a row says that the words are closed.

This page is made of the tables in `ai_proxy_mw/schema/tables` by
`python -m tests.schema.write_docs`.

| code | meaning |
|---|---|
| `missing_required_parameter` | a member that must be there is not |
| `invalid_type` | a value of another JSON type |
| `invalid_value` | a word that is not one of those listed, or what a rule between members says |
| `empty_string`, `empty_array` | nothing where something must be |
| `string_above_max_length`, `array_above_max_length`, `object_above_max_length` | too long |
| `array_below_min_length`, `string_below_min_length` | too short |
| `integer_below_min_value`, `integer_above_max_value` | out of range |
| `decimal_below_min_value`, `decimal_above_max_value` | out of range |
| `mutually_exclusive_parameters` | two members that exclude each other |
| `unknown_parameter` | a member that no table knows, where only what is known may pass |
"""

_MEDIA = {
    "image": "a link or a data URL of a picture",
    "image_data": "a picture in base64",
    "image_link": "a link to a picture",
    "audio": "a sound in base64",
    "file": "a file in base64, or a data URL of one",
    "file_link": "a link to a file",
}


def page() -> str:
    """The whole page."""
    return "\n".join([_INTRO, *(_section(table) for table in TABLES.values())])


def _section(table: Table) -> str:
    rows = _Rows()
    rows.add_fields(table.body, "")
    title = [f"## {table.endpoint}", "", f"Source: {table.source}.", ""]
    return "\n".join([*title, "| field | rule | |", "|---|---|---|", *rows.rows, ""])


class _Rows:
    """The rows of one endpoint; what comes again is described once."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self._described: dict[int, str] = {}

    def add_fields(self, fields: Fields, path: str) -> None:
        for name, kind in fields.fields.items():
            inner = f"{path}.{name}" if path else name
            self._add(inner, _rule(kind), "required" if name in fields.needed else "")
            self._add_inside(kind, inner)
        if fields.rule is not None:
            said = " ".join((inspect.getdoc(fields.rule) or "").split())
            self._add(path or "(the request)", said)

    def _add(self, path: str, rule: str, must: str = "") -> None:
        self.rows.append(f"| `{path}` | {rule} | {must} |")

    def _add_inside(self, kind: Kind, path: str) -> None:
        match kind:
            case ListOf():
                self._add_inside(kind.item, f"{path}[]")
            case MapOf():
                self._add_inside(kind.value, f"{path}.{{}}")
            case Either():
                for each in kind.kinds:
                    self._add_inside(each, path)
            case Fields() if kind.fields and not self._was_described(kind, path):
                self.add_fields(kind, path)
            case Variants() if not self._was_described(kind, path):
                self._add(f"{path}.{kind.by}", _words(kind), "" if kind.default else "required")
                for words, fields in _alike(kind):
                    self._add_inside(fields, f"{path} ({words})")

    def _was_described(self, kind: Kind, path: str) -> bool:
        earlier = self._described.setdefault(id(kind), path)
        if earlier != path:
            self._add(path, f"as `{earlier}`")
        return earlier != path


def _alike(kind: Variants) -> Iterator[tuple[str, Fields]]:
    """Variants with the words that mean the same."""
    alike: dict[int, tuple[list[str], Fields]] = {}
    for word, fields in kind.known.items():
        alike.setdefault(id(fields), ([], fields))[0].append(word)
    for words, fields in alike.values():
        yield ", ".join(words), fields


def _words(kind: Variants) -> str:
    words = ", ".join(f"`{word}`" for word in kind.known)
    default = "" if kind.default is None else f"; `{kind.default}` where it is missing"
    elsewhere = "".join(f", not `{word}`" for word in kind.elsewhere)
    closed = f"another word{elsewhere}" if kind.is_open else ""
    return (f"{words}, or {closed}" if closed else f"one of {words}") + default


def _rule(kind: Kind) -> str:
    return _said(kind) + (", or null" if kind.nullable else "")


def _said(kind: Kind) -> str:
    match kind:
        case Flag():
            return "true or false"
        case Text():
            if kind.choices:
                return "one of " + ", ".join(f"`{choice}`" for choice in kind.choices)
            return "text" + _range(kind.least or None, kind.most, " of", " characters")
        case Media():
            return _MEDIA[kind.media]
        case Number():
            return "a number" + _range(kind.least, kind.most)
        case Whole():
            return "a whole number" + _range(kind.least, kind.most)
    return _said_of_many(kind)


def _said_of_many(kind: Kind) -> str:
    match kind:
        case ListOf():
            size = _range(kind.least or None, kind.most, " of", " items")
            return f"an array{size}, each {_said(kind.item)}"
        case MapOf():
            most = "" if kind.most is None else f", {kind.most} members at most"
            longest = "" if kind.longest is None else f", names of {kind.longest} at most"
            return f"an object with any members{most}{longest}"
        case Fields() | Variants():
            return "an object"
        case Either():
            return " or ".join(dict.fromkeys(_said(each) for each in kind.kinds))
    return "anything"


def _range(least: float | None, most: float | None, before: str = "", after: str = "") -> str:
    if least is not None and most is not None:
        return f"{before} {least} to {most}{after}"
    if least is not None:
        return f"{before} {least} or more{after}"
    return "" if most is None else f"{before} {most} or less{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
