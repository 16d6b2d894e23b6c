"""What an app's own tests need: a fake upstream."""

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
]
