"""`python -m ai_proxy_mw cache`: what a cache on disk or in Redis holds, and forgetting it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._terminal import plain
from ai_proxy_mw.stores.disk_cache import DiskCache
from ai_proxy_mw.stores.guard import StoreDown

if TYPE_CHECKING:
    from ai_proxy_mw.caching.entry import Entry
    from ai_proxy_mw.caching.tags import Kind
    from ai_proxy_mw.stores.base import CacheStore

Say = Callable[[str], None]

_ENTRIES = "e:"
_KINDS: tuple[Kind, ...] = ("subject", "endpoint", "model")


def add_arguments(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True)
    for action, text in {
        "stats": "how many entries, and bytes",
        "list": "key, bytes, status, endpoint, model, when it was stored, seconds it is good for",
        "purge": "forget entries",
    }.items():
        parser = actions.add_parser(action, help=text, description=text)
        parser.add_argument("where", help="the directory, or a URL: redis://, redis+cluster://, …")
        if action == "purge":
            _add_choice(parser)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    # One: a store can look for one tag at a time, and what has two of them is not asked for.
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--subject", help="all that was stored for this caller")
    choice.add_argument("--endpoint", help="all of this endpoint, as `list` shows it")
    choice.add_argument("--model", help="all of this model, as `list` shows it")
    choice.add_argument("--key", help="one entry, as `list` shows it")
    choice.add_argument("--all", action="store_true", help="all there is")


async def run(options: argparse.Namespace, say: Say) -> None:
    """Do what was asked. Raises ConfigurationError, and StoreDown for a store that fails."""
    try:
        store = _store(options.where)
        try:
            await _ACTIONS[options.action](store, options, say)
        finally:
            await store.aclose()
    except ConfigurationError:
        raise
    except Exception as error:
        # Not the text: a client library may put a password there.
        raise StoreDown(f"the store does not answer: {type(error).__name__}") from error


def _store(where: str) -> CacheStore:
    if "://" in where:
        from ai_proxy_mw.stores.redis_cache import RedisCache  # noqa: PLC0415 - of the extra [redis]

        return RedisCache(where)
    if not Path(where, "cache.db").is_file():
        raise ConfigurationError(
            f"{plain(where)}: there is no cache; write the directory that DiskCache was given"
        )
    return DiskCache(where)


async def _stats(store: CacheStore, options: argparse.Namespace, say: Say) -> None:  # noqa: ARG001
    entries, size = await store.stats()
    say(f"{entries} entries, {size} bytes")


async def _list(store: CacheStore, options: argparse.Namespace, say: Say) -> None:  # noqa: ARG001
    from ai_proxy_mw.caching.entry import decode  # noqa: PLC0415 - the demo does without

    async for key in store.keys(_ENTRIES):
        value = await store.get(key)
        if value is not None:
            said = _said(decode(key, value))
            say("\t".join([plain(key), str(len(value)), *map(plain, said)]))


def _said(entry: Entry | None) -> list[str]:
    """What it says of itself."""
    if entry is None:
        return ["not readable"]
    created = datetime.fromtimestamp(entry.created, UTC).isoformat(timespec="seconds")
    return [str(entry.status), entry.endpoint, entry.model, created, f"{entry.ttl:g}"]


async def _purge(store: CacheStore, options: argparse.Namespace, say: Say) -> None:
    say(f"{await _purged(store, options)} entries purged")


async def _purged(store: CacheStore, options: argparse.Namespace) -> int:
    from ai_proxy_mw.caching.tags import tag_of  # noqa: PLC0415 - the demo does without

    if options.key is not None:
        if not options.key.startswith(_ENTRIES):
            raise ConfigurationError(f"--key: keys of entries begin with {_ENTRIES}")
        return await store.purge(key=options.key)
    for kind in _KINDS:
        text = getattr(options, kind)
        if text is not None:
            return await store.purge(prefix=_ENTRIES, tag=tag_of(kind, text))
    return await store.purge(prefix=_ENTRIES)


_ACTIONS = {"stats": _stats, "list": _list, "purge": _purge}
