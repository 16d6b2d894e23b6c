"""Clients of redis-py's asyncio for the URLs that the `limits` library takes, too."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw.stores.guard import PATIENCE

# The same protocol, and one client library for all of it.
_PROTOCOLS = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
_IN_FLIGHT = 64


def maker(url: str) -> Callable[[], Any]:
    """What makes a client for the URL each time it is called.

    One is made at once, to tell now, and not at the first call, what is wrong.
    Raises ConfigurationError.
    """
    scheme, _, rest = url.partition("://")
    make = _maker(scheme, rest)
    library()
    try:
        sample = make()
        if hasattr(sample, "connection_pool"):
            sample.connection_pool.make_connection()  # connects to nothing, and knows all options
    except Exception as error:  # noqa: BLE001 - the library has no errors of its own for it
        wrong = type(error).__name__
    else:
        checked(sample)
        return make
    # Not the URL nor the error's text, which may hold a password; nor the error as a context.
    raise ConfigurationError(
        f"RedisCache('{scheme}://…'): {wrong}; write a URL like 'redis://localhost:6379/0' or "
        "'redis+sentinel://host:26379/mymaster', with options of redis-py after a '?'"
    )


def checked(client: Any) -> Any:
    """A client that gives bytes. Raises ConfigurationError."""
    redis = library()
    if not isinstance(client, redis.Redis | redis.RedisCluster):
        raise ConfigurationError(
            f"RedisCache({type(client).__name__}): write a URL like 'redis://localhost:6379', or a "
            "client of redis.asyncio"
        )
    if client.get_encoder().decode_responses:
        raise ConfigurationError(
            "RedisCache: answers are bytes; write decode_responses=False for its client"
        )
    return client


def library() -> Any:
    """`redis.asyncio`. Raises ConfigurationError."""
    try:
        return importlib.import_module("redis.asyncio")
    except ImportError:
        raise ConfigurationError(
            "RedisCache needs redis-py: pip install 'ai_proxy_mw[redis]'"
        ) from None


def room(client: Any) -> int:
    """How many commands may be in flight at once.

    A pool of connections (100, where its owner does not say) raises when it is at its end, as if
    the server were down; and more at once are not faster, since each waits for the same server.
    """
    pool = getattr(client, "connection_pool", None)
    most = pool.max_connections if pool else client.connection_kwargs["max_connections"]
    return int(max(1, min(_IN_FLIGHT, most)))


async def close(client: Any) -> None:
    """Close a client, and its connections to sentinels."""
    sentinel = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for each in (client, *getattr(sentinel, "sentinels", ())):
        await each.aclose()


def _maker(scheme: str, rest: str) -> Callable[[], Any]:
    family, _, kind = scheme.partition("+")
    protocol = _PROTOCOLS.get(family, "")
    if rest and (scheme == "unix" or (protocol and kind == "unix")):
        return lambda: _alone(f"unix://{rest}")
    if rest and protocol and scheme == family:
        return lambda: _alone(f"{protocol}://{rest}")
    if rest and protocol and kind in _OF_MANY:
        return lambda: _OF_MANY[kind](protocol, rest)
    raise ConfigurationError(
        "RedisCache: write a URL that begins with redis://, rediss://, valkey://, valkeys://, "
        "unix://, redis+cluster:// or redis+sentinel://"
    )


def _alone(url: str) -> Any:
    return library().Redis.from_url(url, **_options(), retry=_once())


def _cluster(protocol: str, rest: str) -> Any:
    redis = library()
    places, _, said = _read(protocol, rest, port=6379)
    nodes = [redis.cluster.ClusterNode(host, port) for host, port in places]
    # The library would ask for the cluster's layout again ten times, and to read one takes the
    # event loop tens of milliseconds.
    return redis.RedisCluster(startup_nodes=nodes, **{**_options(), "retry": _once(), **said})


def _watched(protocol: str, rest: str) -> Any:
    """A client of the master that sentinels name."""
    places, service, said = _read(protocol, rest, port=26379)
    if not service:
        raise ValueError("a service's name is missing")
    # Sentinels have the same password and certificates; what else is said is the master's.
    common = {k: v for k, v in said.items() if k.startswith(("ssl", "username", "password"))}
    sentinel = library().Sentinel(
        places,
        sentinel_kwargs={**_options(), **common, "retry": _once()},
        **{**_options(), "retry": _once(), **said},
    )
    return sentinel.master_for(service)


_OF_MANY = {"cluster": _cluster, "sentinel": _watched}


def _read(protocol: str, rest: str, *, port: int) -> tuple[list[tuple[str, int]], str, Any]:
    """Hosts and ports, the path, and the client's options. Raises ValueError."""
    place, _, query = rest.partition("?")
    place, _, path = place.partition("/")
    login, at, hosts = place.rpartition("@")
    said = dict(_connection().parse_url(f"{protocol}://{login}{at}host?{query}"))
    del said["host"]
    if said.pop("connection_class", None) is not None:
        said["ssl"] = True
    return [_place(host, port) for host in hosts.split(",")], path.strip("/"), said


def _place(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host's name is missing")
    return parts.hostname, parts.port or port


def _connection() -> Any:
    return importlib.import_module("redis.asyncio.connection")


def _options() -> dict[str, Any]:
    return {
        "socket_timeout": PATIENCE,
        "socket_connect_timeout": PATIENCE,
        # In version 3 the server may send what nobody asked for, so that redis-py does not look
        # whether a connection has an unread answer before it takes it out of its pool.
        "protocol": 2,
    }


def _once() -> Any:
    """For connections that were kept while the server was started anew."""
    from redis.asyncio.retry import Retry  # noqa: PLC0415 - it is an extra
    from redis.backoff import NoBackoff  # noqa: PLC0415 - see above

    return Retry(NoBackoff(), 1)
