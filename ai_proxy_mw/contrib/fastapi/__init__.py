"""FastAPI: routes that serve the proxy to whom a dependency of the app lets in.

For a proxy as a middleware, see `ai_proxy_mw.contrib.starlette`.
"""

try:
    import fastapi  # noqa: F401 - to say what to install before the rest asks for it
except ImportError as error:
    raise ImportError(
        "ai_proxy_mw.contrib.fastapi needs FastAPI: pip install 'ai_proxy_mw[fastapi]'"
    ) from error

from ai_proxy_mw.contrib.fastapi._router import proxy_router

__all__ = ["proxy_router"]
