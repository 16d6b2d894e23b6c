"""What several upstreams list, as one list. It only reads and merges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_proxy_mw.routing.lane import Provider

MOST_ENTRIES = 10_000
"""That are taken of one upstream. No provider has as many models."""

_PATTERN = re.compile(r"[*?\[]")
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,256}")


class _Page(msgspec.Struct):
    data: list[msgspec.Raw] | None = None  # some servers write null while they have no model


class _Named(msgspec.Struct):
    id: str


class Entry(NamedTuple):
    """raw: the whole of it, as the upstream wrote it."""

    id: str
    raw: msgspec.Raw


_page = msgspec.json.Decoder(_Page)
_bare = msgspec.json.Decoder(list[msgspec.Raw])  # as some providers list, without a page around it
_named = msgspec.json.Decoder(_Named)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def entries_of(body: bytes) -> list[Entry]:
    """What an answer lists, without the entries that are none. Raises ValueError for no list."""
    try:
        body.decode()  # what is passed on unread would spoil the whole list for the caller
        items = _bare.decode(body) if body.lstrip()[:1] == b"[" else _page.decode(body).data
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError("not a list of models") from error
    return list(_entries(islice(items or (), MOST_ENTRIES)))


def _entries(items: Iterable[msgspec.Raw]) -> Iterator[Entry]:
    for raw in items:
        try:
            name = _named.decode(raw).id
        except (msgspec.MsgspecError, RecursionError):
            continue
        if _NAME.fullmatch(name):
            yield Entry(name, raw)


def exact_names(names: Mapping[str, str | None] | None) -> list[str]:
    """Those that are no patterns."""
    return [name for name in names or () if not _PATTERN.search(name)]


def shown(provider: Provider, entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries of an upstream, under the names by which it is asked for them."""
    renamed: dict[str, list[str]] = {}
    for name in exact_names(provider.upstream.names):
        own = provider.own_name(name)
        if own is not None and own != name:
            renamed.setdefault(own, []).append(name)
    for entry in entries:
        if provider.own_name(entry.id) == entry.id:
            yield entry
        if entry.id in renamed:
            yield from _under(renamed[entry.id], entry.raw)


def merged(
    lists: Iterable[tuple[Provider, Sequence[Entry]]],
    *,
    named: Iterable[str],
    aliases: Iterable[str],
    app: str,
    allowed: Callable[[str], bool],
) -> dict[str, msgspec.Raw]:
    """The entries by their ids; of two with one id, that of the first list.

    named: models that are there whether or not an upstream lists them. aliases: names that stand
    for a model, whatever an upstream calls so.
    """
    found: dict[str, msgspec.Raw] = {}
    for provider, entries in lists:
        for entry in shown(provider, entries):
            found.setdefault(entry.id, entry.raw)
    for name in named:
        if name not in found:
            found[name] = _ours(name, app)
    found |= {name: _ours(name, app) for name in aliases}
    return {name: raw for name, raw in found.items() if allowed(name)}


def page(entries: Mapping[str, msgspec.Raw]) -> bytes:
    """The list as OpenAI writes it, and all that Anthropic's clients look for."""
    ids = list(entries)
    return msgspec.json.encode(
        {
            "object": "list",
            "data": list(entries.values()),
            "has_more": False,
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
        }
    )


def _under(names: Iterable[str], raw: msgspec.Raw) -> Iterator[Entry]:
    try:
        members = _members.decode(raw)
    except RecursionError:
        return  # what lies at the edge of what can be read has been read only by luck
    for name in names:
        members["id"] = msgspec.Raw(msgspec.json.encode(name))
        yield Entry(name, msgspec.Raw(msgspec.json.encode(members)))


def _ours(name: str, app: str) -> msgspec.Raw:
    entry = {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": app,
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    }
    return msgspec.Raw(msgspec.json.encode(entry))
