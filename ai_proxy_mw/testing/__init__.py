"""What an app's own tests need: a fake upstream, and what a store must keep to."""

from ai_proxy_mw.testing._check_cache_store import check_cache_store
from ai_proxy_mw.testing._gate import Gate
from ai_proxy_mw.testing._record import Outcome, SeenRequest
from ai_proxy_mw.testing._server import FakeServer
from ai_proxy_mw.testing._transport import FakeTransport
from ai_proxy_mw.testing.fake import FAKE_BASE_URL, FakeUpstream

__all__ = [
    "FAKE_BASE_URL",
    "FakeServer",
    "FakeTransport",
    "FakeUpstream",
    "Gate",
    "Outcome",
    "SeenRequest",
    "check_cache_store",
]
