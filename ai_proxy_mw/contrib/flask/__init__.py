"""Flask: the app's own users, with what they are known by there.

Before the app (`flask_identify`, for a middleware) or inside it (`proxy_blueprint` or `proxy_view`,
with decorators such as `login_required`).
"""

try:
    import flask  # noqa: F401 - to say what to install before the rest asks for it
except ImportError as error:
    raise ImportError(
        "ai_proxy_mw.contrib.flask needs Flask: pip install 'ai_proxy_mw[flask]'"
    ) from error

from ai_proxy_mw.contrib.flask._asking import login_user_id
from ai_proxy_mw.contrib.flask._context import flask_identify
from ai_proxy_mw.contrib.flask._view import proxy_blueprint, proxy_view

__all__ = ["flask_identify", "login_user_id", "proxy_blueprint", "proxy_view"]
