"""Django, under WSGI and ASGI: `request.user` says who is calling.

As a view (`proxy_urls` or `proxy_view` in your URLs) or as a middleware (`ProxyMiddleware` in
`settings.MIDDLEWARE`, behind AuthenticationMiddleware).
"""

try:
    import django  # noqa: F401 - to say what to install before the rest asks for it
except ImportError as error:
    raise ImportError(
        "ai_proxy_mw.contrib.django needs Django: pip install 'ai_proxy_mw[django]'"
    ) from error

from ai_proxy_mw.contrib.django._asking import user_id
from ai_proxy_mw.contrib.django._middleware import ProxyMiddleware
from ai_proxy_mw.contrib.django._view import proxy_urls, proxy_view

__all__ = ["ProxyMiddleware", "proxy_urls", "proxy_view", "user_id"]
