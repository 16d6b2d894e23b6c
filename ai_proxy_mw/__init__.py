"""The AI proxy that lives inside your own app."""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ai_proxy_mw._api_keys import hash_api_key
from ai_proxy_mw._caps import Caps
from ai_proxy_mw._circuit import Circuit
from ai_proxy_mw._concurrency import Concurrency
from ai_proxy_mw._config import Timeouts, Upstream
from ai_proxy_mw._cors import CORS
from ai_proxy_mw._endpoints import DEFAULT_ENDPOINTS
from ai_proxy_mw._errors import ConfigurationError, Forbidden, ProxyError, Refused, Unauthorized
from ai_proxy_mw._http import Body, Ending, Headers, Observer, Request, Response
from ai_proxy_mw._identify import from_route
from ai_proxy_mw._identity import Identity
from ai_proxy_mw._limits import Limit
from ai_proxy_mw._media import Audio, Files, Images
from ai_proxy_mw._models import Models
from ai_proxy_mw._proxy import AIProxy, ProxyOptions
from ai_proxy_mw._retry import Retry
from ai_proxy_mw._subrequest import SubrequestIdentify
from ai_proxy_mw.accounting.estimate import Estimate
from ai_proxy_mw.accounting.prices import Price, Prices
from ai_proxy_mw.asgi import AIProxyMiddleware
from ai_proxy_mw.schema.call import Call
from ai_proxy_mw.upstream.base import Origin, Outbound, Transport
from ai_proxy_mw.upstream.native import NativeTransport
from ai_proxy_mw.wsgi import AIProxyWSGIMiddleware

if TYPE_CHECKING:
    from ai_proxy_mw.accounting.record import Bodies, Record
    from ai_proxy_mw.caching.counts import CacheStats
    from ai_proxy_mw.caching.options import Cache
    from ai_proxy_mw.metrics.access_log import AccessLog
    from ai_proxy_mw.metrics.base import Span, StatsPoint, StatsReport, StatsRow, Tracing
    from ai_proxy_mw.metrics.outlet import HookStats
    from ai_proxy_mw.routing.standing import UpstreamStats
    from ai_proxy_mw.stores.base import CacheStore, StoreStats
    from ai_proxy_mw.stores.disk_cache import DiskCache
    from ai_proxy_mw.stores.memory_cache import MemoryCache
    from ai_proxy_mw.stores.redis_cache import RedisCache
    from ai_proxy_mw.stores.tiered_cache import TieredCache

__all__ = [
    "CORS",
    "DEFAULT_ENDPOINTS",
    "AIProxy",
    "AIProxyMiddleware",
    "AIProxyWSGIMiddleware",
    "AccessLog",
    "Audio",
    "Bodies",
    "Body",
    "Cache",
    "CacheStats",
    "CacheStore",
    "Call",
    "Caps",
    "Circuit",
    "Concurrency",
    "ConfigurationError",
    "DiskCache",
    "Ending",
    "Estimate",
    "Files",
    "Forbidden",
    "Headers",
    "HookStats",
    "Identity",
    "Images",
    "Limit",
    "MemoryCache",
    "Models",
    "NativeTransport",
    "Observer",
    "Origin",
    "Outbound",
    "Price",
    "Prices",
    "ProxyError",
    "ProxyOptions",
    "Record",
    "RedisCache",
    "Refused",
    "Request",
    "Response",
    "Retry",
    "Span",
    "StatsPoint",
    "StatsReport",
    "StatsRow",
    "StoreStats",
    "SubrequestIdentify",
    "TieredCache",
    "Timeouts",
    "Tracing",
    "Transport",
    "Unauthorized",
    "Upstream",
    "UpstreamStats",
    "from_route",
    "hash_api_key",
]

_LATE = {
    "AccessLog": "metrics.access_log",
    "Bodies": "accounting.record",
    "Cache": "caching.options",
    "CacheStats": "caching.counts",
    "CacheStore": "stores.base",
    "DiskCache": "stores.disk_cache",
    "HookStats": "metrics.outlet",
    "MemoryCache": "stores.memory_cache",
    "Record": "accounting.record",
    "RedisCache": "stores.redis_cache",
    "Span": "metrics.base",
    "StatsPoint": "metrics.base",
    "StatsReport": "metrics.base",
    "StatsRow": "metrics.base",
    "StoreStats": "stores.base",
    "TieredCache": "stores.tiered_cache",
    "Tracing": "metrics.base",
    "UpstreamStats": "routing.standing",
}


# To a type checker every name would be one.
if not TYPE_CHECKING:  # pragma: no branch - it is never false at run time

    def __getattr__(name: str) -> Any:
        """Names that not all need are imported when they are asked for (PEP 562).

        They are a quarter of the time that importing the package takes.
        """
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
