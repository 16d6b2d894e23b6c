"""AIProxy: one object configures one proxy, owns its connections, and is given to the doors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Literal, TypedDict

from ai_proxy_mw._clients import TrustedProxies
from ai_proxy_mw._concurrency import concurrency_of
from ai_proxy_mw._config import Timeouts, Upstream, upstreams_of
from ai_proxy_mw._cors import CORS
from ai_proxy_mw._endpoints import DEFAULT_ENDPOINTS, Endpoints
from ai_proxy_mw._errors import ConfigurationError
from ai_proxy_mw._identify import choose, from_route
from ai_proxy_mw._loop import loop_thread
from ai_proxy_mw._paths import check_prefix
from ai_proxy_mw._signals import follow
from ai_proxy_mw._terms import OnDisconnect, terms_of

if TYPE_CHECKING:
    from typing import Self, Unpack

    from ai_proxy_mw._api_keys import FindSubject, IssuedKeys
    from ai_proxy_mw._caps import Caps
    from ai_proxy_mw._checks import Check
    from ai_proxy_mw._circuit import Circuit
    from ai_proxy_mw._concurrency import Concurrency
    from ai_proxy_mw._identify import Identify
    from ai_proxy_mw._media import Audio, Files, Images
    from ai_proxy_mw._models import Models
    from ai_proxy_mw._records import Seen
    from ai_proxy_mw._retry import Retry
    from ai_proxy_mw._types import Handler, RawHeaders
    from ai_proxy_mw._ways import Ways
    from ai_proxy_mw.accounting.costs import Costs, Estimator
    from ai_proxy_mw.accounting.prices import Prices
    from ai_proxy_mw.accounting.record import Record
    from ai_proxy_mw.caching.answers import Answers
    from ai_proxy_mw.caching.options import Cache
    from ai_proxy_mw.caching.tools import CacheTools
    from ai_proxy_mw.dashboard.app import Dashboard
    from ai_proxy_mw.limiting.limiter import FindLimits, Limits, OnStoreFailure
    from ai_proxy_mw.metrics.access_log import AccessLog
    from ai_proxy_mw.metrics.base import By, RecordHook, StatsReport, Tracing, Window
    from ai_proxy_mw.metrics.outlet import HookStats
    from ai_proxy_mw.metrics.stats import Stats
    from ai_proxy_mw.routing.gate import Gate
    from ai_proxy_mw.routing.router import Route
    from ai_proxy_mw.routing.standing import UpstreamStats
    from ai_proxy_mw.routing.trip import Deadline
    from ai_proxy_mw.stores.base import CacheStore

MAX_BODY = 64 * 1024 * 1024


class ProxyOptions(TypedDict, total=False):
    """The arguments of AIProxy, for those who pass them on."""

    upstream: str | Upstream | None
    upstreams: Iterable[Upstream]
    api_key: str | None
    retry: Retry | None
    fallback: Mapping[str, Iterable[str]]
    circuit: Circuit | Literal[False] | None
    hedge_after: float | None
    route: Route | None
    deadline: Deadline | None
    identify: Identify | None
    api_keys: IssuedKeys | FindSubject | None
    anonymous: bool
    trusted_proxies: Iterable[str]
    trusted_origins: Iterable[str]
    limits: Limits | FindLimits
    limits_storage: object | None
    on_store_failure: OnStoreFailure
    limits_endpoint: bool
    health_endpoint: bool
    max_concurrent: int | Concurrency | None
    validate: bool
    strict: bool
    images: Images | None
    audio: Audio | None
    files: Files | None
    models: Models | Iterable[str] | None
    caps: Caps | None
    checks: Iterable[Check]
    cache: Cache | CacheStore | None
    prices: Prices | None
    estimate: Estimator | None
    on_record: Iterable[RecordHook]
    access_log: AccessLog | bool
    stats: CacheStore | bool
    tracing: Tracing | None
    dashboard: str | None
    dashboard_identify: Identify | None
    name: str
    prefix: str
    endpoints: Iterable[str]
    forward_headers: Iterable[str]
    max_body: int
    timeouts: Timeouts | None
    keepalive: float | None
    on_disconnect: OnDisconnect
    drain_max: float
    drain: float
    follow_signals: bool
    cors: CORS | None


class AIProxy:
    """A proxy to an OpenAI-compatible upstream, ready for a door.

    upstream: the base URL as for the provider's SDK, or an `Upstream`.
    upstreams: several `Upstream`s in its place: the call's model, their priorities and weights
        say which is asked, and another one is when it fails.
    api_key: the provider's key; it never reaches a caller.
    retry: how often a call that failed is sent again. None is `Retry()` where there are several
        upstreams or keys, and one attempt where there is one.
    fallback: models that may answer in the place of others: `{"gpt-4.1": ["claude-sonnet-4.5"]}`.
    circuit: when an upstream that fails is left alone. None is `Circuit()` where there are several
        upstreams or a `retry`; False is never.
    hedge_after: seconds without an answer after which a second upstream is asked beside the first.
    route: a function `(Request) -> str | list[str] | None`, sync or async, that names the upstreams
        to ask, in their order; None leaves it to the rest.
    deadline: seconds until an answer has to begin, or a function of the request that says them.
    identify: your function `(Request) -> str | Identity | None`, sync or async: who is calling.
    api_keys: the keys you have issued, as `{subject: key}`, or a function that finds whose one is.
    anonymous: True admits everybody; the subject is then the caller's address.
    trusted_proxies: the networks of the reverse proxies whose word on that address is taken.
    trusted_origins: other sites whose pages may use your users' cookies, besides those of `cors`.
    limits: how much callers may use: texts like `"100/minute"` and `Limit`s, or a function of the
        request that gives them.
    limits_storage: where it is counted: a URI or asynchronous storage of the `limits` library;
        in this process if None.
    on_store_failure: while that does not answer: "allow", "deny" or count in "memory".
    limits_endpoint: whether callers may ask how their limits stand, at `GET {prefix}/_limits`.
    health_endpoint: whether anybody may ask if calls can be answered, at `GET {prefix}/_health`.
    max_concurrent: the most calls at a time in this process, or a `Concurrency` that also says how
        many more may wait, and how long; further ones are 503.
    validate: whether requests are judged before they go upstream.
    strict: whether what no table of ours knows is refused, too.
    images, audio, files: which pictures, sounds and files may be sent.
    models: which models may be asked for: names and patterns, or `Models` with aliases.
    caps: the most that one call may ask for.
    checks: functions `(Call) -> Call | None`, sync or async, asked before a call goes upstream.
    cache: where answers are kept to be given again: a store like `MemoryCache()`, or a `Cache`
        that also says which, for whom and how long; nothing is kept if None.
    prices: what models cost; needed for limits of dollars.
    estimate: a function `(Call) -> Estimate` of what a call may use, in the place of ours.
    on_record: functions `(Record) -> None`, sync or async, that are given the record of each call
        when it is over; the calls do not wait for them.
    access_log: whether each call is a line of the logger `ai_proxy_mw.access`, where the host's
        logging wants those; or an `AccessLog` that says what is in it.
    stats: whether calls are counted for `stats()`: with the other processes in the store of the
        cache, or in one that is given here.
    tracing: what follows each call from its beginning, such as `OpenTelemetry()`.
    dashboard: a path, like "/ai", of a page that shows what the calls are like and cost.
    dashboard_identify: your function, like `identify`, of who may see it.
    name: of the app. Apps of one name that use one storage count together.
    prefix: the path under which the proxy lives.
    endpoints: what may be relayed; see `DEFAULT_ENDPOINTS`.
    forward_headers: request headers to pass on besides those every provider knows.
    max_body: the most bytes of a request body; more is 413.
    timeouts: the patience with the upstream and the caller.
    keepalive: seconds of silence in an event stream before the caller is sent a comment; None for
        never.
    on_disconnect: what a caller who leaves does to his call: "cancel" ends it at once, "drain" has
        it go on, so that what it used is known exactly.
    drain_max: seconds that it may then go on.
    drain: seconds that the calls under way are given when the process stops.
    follow_signals: whether that begins with the signals that stop the server.
    cors: which pages on other origins may call, as a `CORS`; without it, none.

    Exactly one of identify, api_keys and anonymous is needed. Raises ConfigurationError.
    Connections are opened when they are first needed and closed by `aclose()`, which the ASGI
    door calls at the end of the app's lifespan; the proxy can be used again after it.
    """

    def __init__(
        self,
        *,
        upstream: str | Upstream | None = None,
        upstreams: Iterable[Upstream] = (),
        api_key: str | None = None,
        retry: Retry | None = None,
        fallback: Mapping[str, Iterable[str]] = MappingProxyType({}),
        circuit: Circuit | Literal[False] | None = None,
        hedge_after: float | None = None,
        route: Route | None = None,
        deadline: Deadline | None = None,
        identify: Identify | None = None,
        api_keys: IssuedKeys | FindSubject | None = None,
        anonymous: bool = False,
        trusted_proxies: Iterable[str] = (),
        trusted_origins: Iterable[str] = (),
        limits: Limits | FindLimits = (),
        limits_storage: object | None = None,
        on_store_failure: OnStoreFailure = "memory",
        limits_endpoint: bool = False,
        health_endpoint: bool = False,
        max_concurrent: int | Concurrency | None = None,
        validate: bool = True,
        strict: bool = False,
        images: Images | None = None,
        audio: Audio | None = None,
        files: Files | None = None,
        models: Models | Iterable[str] | None = None,
        caps: Caps | None = None,
        checks: Iterable[Check] = (),
        cache: Cache | CacheStore | None = None,
        prices: Prices | None = None,
        estimate: Estimator | None = None,
        on_record: Iterable[RecordHook] = (),
        access_log: AccessLog | bool = True,
        stats: CacheStore | bool = True,
        tracing: Tracing | None = None,
        dashboard: str | None = None,
        dashboard_identify: Identify | None = None,
        name: str = "default",
        prefix: str = "/v1",
        endpoints: Iterable[str] = DEFAULT_ENDPOINTS,
        forward_headers: Iterable[str] = (),
        max_body: int = MAX_BODY,
        timeouts: Timeouts | None = None,
        keepalive: float | None = 15.0,
        on_disconnect: OnDisconnect = "cancel",
        drain_max: float = 60.0,
        drain: float = 30.0,
        follow_signals: bool = True,
        cors: CORS | None = None,
    ) -> None:
        # Not with `import ai_proxy_mw`, which shall be quick also where no proxy is made.
        from ai_proxy_mw._pipeline import build  # noqa: PLC0415
        from ai_proxy_mw._records import Seen, desk_of, stats_of  # noqa: PLC0415
        from ai_proxy_mw._rules import rules_of  # noqa: PLC0415
        from ai_proxy_mw._ways import ways_of  # noqa: PLC0415
        from ai_proxy_mw.accounting.costs import Costs  # noqa: PLC0415
        from ai_proxy_mw.limiting.limiter import Limiter  # noqa: PLC0415
        from ai_proxy_mw.routing.shared_state import state_in  # noqa: PLC0415
        from ai_proxy_mw.stages.health import HEALTH  # noqa: PLC0415
        from ai_proxy_mw.stages.rate_limit import STATUS  # noqa: PLC0415

        if type(max_body) is not int or max_body < 1:
            raise ConfigurationError(f"max_body={max_body!r}: write a number of bytes above 0")
        if cors is not None and not isinstance(cors, CORS):
            raise ConfigurationError(f"cors={cors!r}: write CORS(allow_origins=[...])")
        self.upstreams = upstreams_of(upstream, upstreams, api_key, timeouts)
        self.upstream = self.upstreams[0]
        self.terms = terms_of(
            keepalive=keepalive,
            write=self.upstream.timeouts.write,
            on_disconnect=on_disconnect,
            drain_max=drain_max,
            drain=drain,
            follow_signals=follow_signals,
        )
        self.prefix = check_prefix(prefix)
        self.max_body = max_body
        own = {STATUS: limits_endpoint, HEALTH: health_endpoint}
        self.endpoints = Endpoints(endpoints, *[each for each, is_on in own.items() if is_on])
        self.limits = Limiter(
            limits, name=name, storage=limits_storage, on_failure=on_store_failure
        )
        self._rules = rules_of(
            validate=validate,
            strict=strict,
            images=images,
            audio=audio,
            files=files,
            models=models,
            caps=caps,
            checks=checks,
        )
        kept = None if cache is None else _kept(cache)
        self._ways = ways_of(
            self.upstreams,
            forward_headers,
            retry=retry,
            fallback=fallback,
            circuit=circuit,
            hedge_after=hedge_after,
            route=route,
            deadline=deadline,
            name=name,
            state=state_in(None if kept is None else kept.store, self.limits.shared_counts),
        )
        costs = Costs(prices, estimate, self._ways.models_behind)
        self._answers = None if kept is None else _answers(kept, name, self._ways, costs)
        self._stats = stats_of(stats, name=name, kept=None if kept is None else kept.store)
        self._desk = desk_of(on_record, access_log=access_log, stats=self._stats, tracing=tracing)
        self.by_route = identify is from_route
        self._proxies = TrustedProxies(trusted_proxies)
        journey = build(
            endpoints=self.endpoints,
            identify=choose(identify, api_keys, anonymous),
            trusted_origins=None if identify is None else trusted_origins,
            gate=_gate(max_concurrent),
            limiter=self.limits,
            rules=self._rules,
            answers=self._answers,
            costs=costs,
            ways=self._ways,
            cors=cors,
            desk=self._desk,
            name=name,
            stopping=self.terms.stop.begun if health_endpoint else None,
        )
        self.dashboard: Dashboard | None = None
        if dashboard is not None:
            if self.by_route:
                raise ConfigurationError(
                    "dashboard= is served by the middlewares, which a proxy with "
                    "identify=from_route is not for: leave it out, and ask stats() in a route"
                )
            seen = Seen(self._counted(), self._ways.lanes, self.limits)
            self.dashboard = _dashboard(dashboard, dashboard_identify, seen, self.prefix)
        elif dashboard_identify is not None:
            raise ConfigurationError("dashboard_identify= needs a path: write dashboard='/ai'")
        self.handle: Handler = journey.whole
        self.stopping: Handler = journey.stopping
        self._admitted = journey.admitted

    @property
    def cache(self) -> CacheTools:
        """`purge`, `stats` and `warm`. Raises ConfigurationError where nothing is kept."""
        if self._answers is None:
            raise ConfigurationError("this proxy has no cache; give it cache=MemoryCache() or such")
        from ai_proxy_mw.caching.tools import CacheTools  # noqa: PLC0415 - only for the owner

        return CacheTools(self._answers, self._admitted)

    def upstream_stats(self) -> list[UpstreamStats]:
        """How each upstream stands with each of its keys, in this process."""
        from ai_proxy_mw.routing.standing import stats_of  # noqa: PLC0415 - only for the owner

        return [stats_of(lane) for lane in self._ways.lanes]

    async def stats(self, *, window: Window = "24h", by: By = "model") -> StatsReport:
        """What the calls of a window of time were like, of all processes that share the store.

        Raises ConfigurationError where nothing is counted.
        """
        return await self._counted().read(window, by)

    def stats_sync(self, *, window: Window = "24h", by: By = "model") -> StatsReport:
        """The same, for code that has no event loop."""
        return loop_thread().run(self._counted().read(window, by))

    async def recent(self, most: int = 100) -> list[Record]:
        """The latest calls, the newest first. Raises ConfigurationError as above."""
        return await self._counted().recent(most)

    def _counted(self) -> Stats:
        if self._stats is None:
            raise ConfigurationError("this proxy counts nothing; leave out stats=False")
        return self._stats

    def hook_stats(self) -> list[HookStats]:
        """What has become of the records, for each hook, in this process."""
        return [] if self._desk is None else self._desk.stats

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, **options: Unpack[ProxyOptions]
    ) -> Self:
        """A proxy as the `AI_PROXY_*` variables say; `options` given here go before them.

        `environ` is `os.environ` unless another mapping is given. Raises ConfigurationError with
        the name of the variable that is wrong.
        """
        from ai_proxy_mw._env import read  # noqa: PLC0415 - the only room that names back ends

        return cls(**read(environ, options))

    def client_of(self, peer: str | None, headers: RawHeaders) -> str | None:
        """The address that a call came from, behind the trusted proxies."""
        return self._proxies.client(peer, headers)

    def begin_shutdown(self) -> None:
        """Refuse new calls with 503, and give those under way `drain` seconds.

        Returns at once, can be called from any thread and from signal handlers, and changes
        nothing the second time. The lifespan's next start and `aclose()` end it.
        """
        self.terms.stop.begin()

    def follow_signals(self) -> None:
        """Begin the shutdown when the process is told to stop by SIGTERM or SIGINT.

        The doors do it themselves, unless the proxy was told not to. A server that forks its
        workers after the app is loaded can call it in each: gunicorn's `post_worker_init`. Only in
        the main thread, and only where the server has a handler of its own, which is called then.
        """
        follow(self.terms.stop)

    async def aclose(self) -> None:
        """Close the connections that the running event loop has open."""
        await self._ways.stop_sharing()
        if self._answers is not None:
            await self._answers.flights.aclose()
        # What ends with the process is still told; then those are closed that keep it.
        if self._desk is not None:
            await self._desk.aclose()
        if self._stats is not None:
            await self._stats.aclose()
        if self._answers is not None:
            await self._answers.aclose()
        await self.limits.aclose()
        if self._rules.fetcher is not None:
            await self._rules.fetcher.aclose()
        await self._ways.aclose()
        self.terms.stop.reset()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AIProxy(upstream={self.upstream!r}, prefix={self.prefix!r})"


def of(proxy: AIProxy | None, options: ProxyOptions) -> AIProxy:
    """The proxy that a door was given, or one of the options it was given instead."""
    if proxy is None:
        if not {"upstream", "upstreams"} & set(options):
            raise ConfigurationError("give proxy=AIProxy(...), or upstream= and the rest")
        return AIProxy(**options)
    if options:
        raise ConfigurationError(
            f"give proxy= or AIProxy's own arguments, not both: {sorted(options)}"
        )
    return proxy


def refuse_by_route(proxy: AIProxy) -> None:
    """Raises ConfigurationError for a proxy that a middleware could not ask who is calling."""
    if proxy.by_route:
        raise ConfigurationError(
            "identify=from_route is for proxy_router and proxy_view; give a middleware's proxy "
            "identify=your_function"
        )


def require_by_route(proxy: AIProxy) -> None:
    """Raises ConfigurationError for a proxy that would not ask the route who is calling."""
    if not proxy.by_route:
        raise ConfigurationError(
            "a route says who is calling: give its proxy identify=from_route and nothing else"
        )


def _kept(cache: Cache | CacheStore) -> Cache:
    from ai_proxy_mw.caching.options import cache_of  # noqa: PLC0415 - not where nothing is kept

    return cache_of(cache)


def _answers(cache: Cache, name: str, ways: Ways, costs: Costs) -> Answers:
    from ai_proxy_mw.caching.answers import Answers  # noqa: PLC0415 - see above

    return Answers(cache, name=name, upstream=ways.accounts, forwarded=ways.forwarded, costs=costs)


def _dashboard(prefix: str, identify: Identify | None, seen: Seen, api: str) -> Dashboard:
    from ai_proxy_mw.dashboard.app import dashboard_of  # noqa: PLC0415 - not where there is none

    return dashboard_of(prefix, identify, seen, api)


def _gate(max_concurrent: int | Concurrency | None) -> Gate | None:
    concurrency = concurrency_of(max_concurrent, "max_concurrent")
    if concurrency is None:
        return None
    from ai_proxy_mw.routing.gate import Gate  # noqa: PLC0415 - not where nobody is turned away

    return Gate(concurrency)
